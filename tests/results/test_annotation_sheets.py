from __future__ import annotations

import csv
from pathlib import Path

import pytest

from layerscope import LayerscopeError
from layerscope.results.annotation_sheets import Sheet, read_sheets, write_sheet

SHEET = Sheet(
    shown=("context",),
    rows={"a1": ("=HYPERLINK(evil)",), "b2": ('with "quotes", and\ta tab',), "c3": ("three",)},
    questions={"pattern": (), "kind": ("shallow", "none")},
)


def fill(path: Path, answers: dict[str, tuple[str, str]], *, separator: str = ",") -> None:
    """Fill a sheet in as a spreadsheet would."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), delimiter=separator)
        writer.writeheader()
        for row in rows:
            row["pattern"], row["kind"] = answers.get(row["row"], ("", ""))
            writer.writerow(row)


def test_a_sheet_comes_back_as_it_was_filled_in(tmp_path: Path) -> None:
    path = write_sheet(tmp_path, SHEET, "anna")
    fill(path, {"a1": ("ends in x", "Shallow"), "c3": ("", "none")}, separator=";")

    found = read_sheets(tmp_path, SHEET)

    assert found.problems == ()
    assert found.answers == {
        "anna": {"a1": {"pattern": "ends in x", "kind": "shallow"}, "c3": {"kind": "none"}}
    }


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    with write_sheet(tmp_path, SHEET, "anna").open(encoding="utf-8-sig", newline="") as file:
        cells = [row["context"] for row in csv.DictReader(file)]

    assert cells == ["'=HYPERLINK(evil)", 'with "quotes", and\ta tab', "three"]


def test_an_empty_sheet_says_nothing(tmp_path: Path) -> None:
    write_sheet(tmp_path, SHEET, "anna")

    assert read_sheets(tmp_path, SHEET).answers == {}


def test_a_sheet_is_never_written_over(tmp_path: Path) -> None:
    write_sheet(tmp_path, SHEET, "anna")

    with pytest.raises(LayerscopeError, match="may be filled in"):
        write_sheet(tmp_path, SHEET, "anna")


@pytest.mark.parametrize("name", ["", "../anna", "a b", "a/b", "."])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayerscopeError, match="cannot name a sheet"):
        write_sheet(tmp_path, SHEET, name)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"row,context,pattern,kind\na1,x,,perhaps\n", "kind = 'perhaps'"),
        (b"row,context,pattern,kind\nzz,x,,none\n", "row 'zz'"),
        (b"row,context,pattern\na1,x,y\n", "no column kind"),
        (b"\xff\xfe\x00", "cannot be used"),
        (b"row,context,pattern,kind\na1\n", None),
    ],
)
def test_what_cannot_be_used_is_told_and_hides_no_other(
    tmp_path: Path, content: bytes, problem: str | None
) -> None:
    fill(write_sheet(tmp_path, SHEET, "anna"), {"b2": ("p", "none")})
    (tmp_path / "annotations" / "bert.csv").write_bytes(content)

    found = read_sheets(tmp_path, SHEET)

    assert set(found.answers) == {"anna"}
    assert [problem in one for one in found.problems] == ([True] if problem else [])
