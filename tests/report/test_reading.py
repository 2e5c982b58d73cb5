"""Pages for reading, and what annotators wrote, on the report."""

from __future__ import annotations

from pathlib import Path

from layerscope import experiments
from layerscope.report import write_report
from layerscope.report.reading import shown_page
from layerscope.results.annotation_sheets import write_sheet
from layerscope.results.pages import Chapter, Excerpt, Page, Piece
from layerscope.results.store import RunFolder
from report.made_runs import HOSTILE, MakeRun
from report.test_report import with_examples


def html_of(run: RunFolder, tmp_path: Path) -> str:
    return with_examples(write_report([run], tmp_path / "report.html").read_text(encoding="utf-8"))


def test_equal_neighbours_are_one_run_and_marks_show_blanks() -> None:
    pieces = (
        Piece("a"),
        Piece(" b"),
        Piece(" \\n", shade=0.04, marked=True),
        Piece("c", shade=0.61),
        Piece("d", shade=-2.0),
    )

    (chapter,) = shown_page(
        "r", "h", Page((Chapter("key", (Excerpt(pieces),), name="k"),)), {"k": "said"}
    ).chapters

    assert chapter.excerpts[0].runs == (("", "a b"), ("marked", "·⏎"), ("p3", "c"), ("n5", "d"))
    assert chapter.notes == ("said",)


def test_hostile_texts_are_shown_and_do_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    text = html_of(make_run(experiment="trial_reading"), tmp_path)

    body = text[text.index('<details class="reading"') : text.index('id="provenance"')]
    assert "<script>alert" not in body
    assert "<b>" not in body
    assert body.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6
    assert "\u202e" not in body
    assert "&lt;U+202E&gt;" in body
    assert '<span class="marked p2">·⏎</span>' in body
    assert "calm text<" in body


def test_an_experiment_without_pages_has_none(make_run: MakeRun, tmp_path: Path) -> None:
    assert experiments.load("trial_trace").read is None
    assert '<details class="reading"' not in html_of(make_run(), tmp_path)


def test_what_annotators_wrote_is_on_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(experiment="trial_reading")
    sheet = experiments.load("trial_reading").sheet
    assert sheet is not None
    for name, answer in (("anna", "yes"), ("bert", "no")):
        path = write_sheet(run.path, sheet(run.result()), name)
        path.write_text(f"row,context,kind\nr1,x,{answer}\n", encoding="utf-8")
    (run.path / "annotations" / "cleo.csv").write_text("row,context,kind\nr1,x,maybe\n", encoding="utf-8")

    text = html_of(run, tmp_path)

    assert "claim of annotators: anna said yes; bert said no" in text
    assert "figure of annotators" in text
    assert "note: anna said yes; bert said no" in text
    assert "the annotations in cleo.csv cannot be used" in text


def test_without_sheets_nothing_is_judged(make_run: MakeRun, tmp_path: Path) -> None:
    assert "annotators" not in html_of(make_run(experiment="trial_reading"), tmp_path)


def test_every_page_of_hostile_text_is_text(make_run: MakeRun) -> None:
    run = make_run(experiment="trial_reading")
    read = experiments.load("trial_reading").read
    assert read is not None

    ((heading, page),) = read(run.result()).items()

    assert heading == HOSTILE
    shown = shown_page("r", heading, page)
    assert shown.n_excerpts == 1
    assert "\ud800" not in "".join(text for _, text in shown.chapters[0].excerpts[0].runs)
