"""What the posts claimed, on the page of the runs that decided it."""

from __future__ import annotations

from pathlib import Path

from atlas.posts.made_results import made
from layerscope.atlas.posts import post_named
from layerscope.atlas.reproduced import NOT_JUDGED, SAVED, Reproduction, joined, save, saved
from layerscope.atlas.verdicts import judge
from layerscope.report import write_report
from report.made_runs import MakeRun


def test_the_table_beside_the_runs_is_shown_with_every_verdict(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    verdicts = judge(post_named("word"), made(1.0), "<b>m</b>")
    found = Reproduction(("<b>m</b>",), tuple((one,) for one in verdicts))
    save(found, run.path.parent)

    page = write_report([run], tmp_path / "report.html").read_text(encoding="utf-8")

    assert "What the posts claimed" in page
    assert "of 4 claims 4 hold, 0 do not hold, 0 cannot be decided here" in page
    assert "&lt;b&gt;m" in page
    assert page.count("<strong>holds</strong>") == 4


def test_without_a_table_or_with_a_broken_one_there_is_no_such_part(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run()
    for content in (None, "{", '[{"post": 1}]', "[1]", "[" * 9999):
        if content is not None:
            (run.path.parent / SAVED).write_text(content)
        assert saved(run.path.parent) == []
    page = write_report([run], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What the posts claimed" not in page


def test_tables_of_several_folders_stand_side_by_side(tmp_path: Path) -> None:
    verdicts = {name: judge(post_named("word"), made(1.0), name) for name in ("one", "two")}
    for name, some in (("one", verdicts["one"]), ("two", verdicts["two"][:2])):
        (tmp_path / name).mkdir()
        save(Reproduction((name,), tuple((verdict,) for verdict in some)), tmp_path / name)

    found = joined(
        (saved(tmp_path / name) for name in ("two", "one", "no such folder")), ("one", "two", "three")
    )

    assert [claim.said for claim in found] == [verdict.claim.said for verdict in verdicts["one"]]
    assert [claim.models for claim in found] == [("one", "two", "three")] * 4
    assert [claim.verdicts for claim in found] == [("holds", "holds", NOT_JUDGED)] * 2 + [
        ("holds", NOT_JUDGED, NOT_JUDGED)
    ] * 2
    assert joined([found], ("four",)) == []
