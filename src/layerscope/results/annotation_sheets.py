"""Sheets that people fill in: rows to judge, as a CSV file for any spreadsheet, and back.

A sheet is written blind: rows come in a random order and carry no layer, so that nobody's
expectation about layers finds its way into the answers. What a row is about is known by its id alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from layerscope.errors import LayerscopeError
from layerscope.results.files import make_folder, write_text
from layerscope.results.spreadsheet import harmless

FOLDER = "annotations"
"""Where filled-in sheets lie in a run folder: one file for each annotator, named after them."""

_ID = "row"


@dataclass(frozen=True)
class Sheet:
    """What is asked of an annotator.

    Attributes:
        shown: names of the columns to read.
        rows: what those columns say, by id, in the order in which a person meets them.
        questions: the columns to fill in, each with its allowed answers; none: free text.
    """

    shown: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]
    questions: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Judgements:
    """What annotators answered.

    Attributes:
        answers: by annotator, row id and question; empty cells are not there.
        problems: files that could not be used, and why.
    """

    answers: Mapping[str, Mapping[str, Mapping[str, str]]]
    problems: tuple[str, ...] = field(default=())


def write_sheet(folder: Path, sheet: Sheet, annotator: str) -> Path:
    """Write an empty sheet for one annotator; never over one that is there.

    Args:
        folder: the run folder.
        sheet: what is asked.
        annotator: names the file; letters, digits, - and _.

    Raises:
        LayerscopeError: a name that is no file name, or a sheet that exists.
    """
    if not annotator or not all(character.isalnum() or character in "-_" for character in annotator):
        raise LayerscopeError(
            "this name cannot name a sheet",
            found=repr(annotator),
            expected="letters, digits, - and _",
            hint="--annotator anna",
        )
    path = make_folder(folder / FOLDER) / f"{annotator}.csv"
    if path.exists():
        raise LayerscopeError(
            "this sheet exists, and may be filled in",
            found=path,
            expected="an annotator without a sheet",
            hint="another --annotator, or move that file away",
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_ID, *sheet.shown, *sheet.questions])
    for name, cells in sheet.rows.items():
        writer.writerow([name, *map(harmless, cells), *[""] * len(sheet.questions)])
    write_text(path, "\ufeff" + text.getvalue())  # spreadsheets take UTF-8 for what it is only with this mark
    return path


def read_sheets(folder: Path, sheet: Sheet) -> Judgements:
    """Every filled-in sheet of a run; one that cannot be used is told, and does not hide the others."""
    answers: dict[str, dict[str, dict[str, str]]] = {}
    problems = []
    for path in sorted((folder / FOLDER).glob("*.csv")):
        try:
            found = _read(path, sheet)
        except LayerscopeError as error:
            problems.append(str(error))
            continue
        if found:
            answers[path.stem] = found
    return Judgements(answers, tuple(problems))


def _read(path: Path, sheet: Sheet) -> dict[str, dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            start = file.read(4096)
            file.seek(0)
            # Spreadsheets of many countries write semicolons.
            separator = ";" if start.split("\n")[0].count(";") > start.split("\n")[0].count(",") else ","
            rows = list(csv.DictReader(file, delimiter=separator))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unusable(path, str(error), "a CSV file in UTF-8") from error
    missing = [name for name in (_ID, *sheet.questions) if rows and name not in rows[0]]
    if missing:
        raise _unusable(
            path, f"no column {', '.join(missing)}", f"columns {_ID}, {', '.join(sheet.questions)}"
        )
    found: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, start=2):
        given = {question: _answer(path, number, row, question, sheet) for question in sheet.questions}
        given = {question: answer for question, answer in given.items() if answer}
        if not given:
            continue
        name = (row[_ID] or "").strip()
        if name not in sheet.rows:
            raise _unusable(path, f"line {number}: row {name!r}", "rows of this run's own sheet")
        found[name] = given
    return found


def _answer(path: Path, number: int, row: Mapping[str, str | None], question: str, sheet: Sheet) -> str:
    answer, allowed = (row[question] or "").strip(), sheet.questions[question]
    if allowed and answer and answer.lower() not in allowed:
        raise _unusable(
            path, f"line {number}: {question} = {answer!r}", f"one of {', '.join(allowed)}, or nothing"
        )
    return answer.lower() if allowed else answer


def _unusable(path: Path, found: str, expected: str) -> LayerscopeError:
    return LayerscopeError(
        f"the annotations in {path.name} cannot be used",
        found=found,
        expected=expected,
        hint="mend that file, or move it out of the folder annotations/",
    )
