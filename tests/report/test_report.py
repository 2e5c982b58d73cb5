from __future__ import annotations

import base64
import gzip
import html
import re
from pathlib import Path

import pytest

from layerscope import experiments
from layerscope.errors import LayerscopeError
from layerscope.report import write_report
from report.made_runs import HOSTILE, MakeRun


def page_without_library(path: Path) -> str:
    """The page's own text, examples unpacked: plotly.js, five megabytes of it, is left out."""
    text = path.read_text(encoding="utf-8")
    return with_examples(re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))


def with_examples(text: str) -> str:
    """A page as it is when all its examples have been opened."""
    return re.sub(r'<script type="application/gzip" class="examples">(.*?)</script>', _unpacked, text)


def _unpacked(found: re.Match[str]) -> str:
    return gzip.decompress(base64.b64decode(found[1])).decode()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "pages" / "report.html"


def test_a_complete_run_tells_everything(make_run: MakeRun, out: Path) -> None:
    page = page_without_library(write_report([make_run()], out))

    assert "<h1>What each layer of english-12l does</h1>" in page
    assert "<h3>Which states of a made-up model carry the answer?" in page
    assert page.count("facts cross 2.6 blocks later than phrases") == 2
    assert "2.6 [1.9, 3.2]" in page
    assert '<td class="number">&lt; 0.001</td>' in page
    assert 'class="quiet"' in page
    assert "Used 28 of 30 prompts" in page
    assert "samples were few: &lt;i&gt;ten&lt;/i&gt;" in page
    assert "<strong>Beware.</strong>" in page
    assert "--set noise=3sd" in page
    assert page.count("<figure") == 6
    assert "5f5f5f5f" in page
    assert "post-norm residuals (refused)" in page


def test_hostile_text_reaches_no_markup(make_run: MakeRun, out: Path) -> None:
    run = make_run(model=HOSTILE.replace("\ud800", ""), settings={"noise": "</script><b>"})
    page = page_without_library(write_report([run], out, title="<b>title"))

    for tag in ("<script>alert", "<b>", "<img", "<extra>", "<i>ten"):
        assert tag not in page
    assert not re.search("[\x00-\x08\u202a-\u202e\ud800-\udfff]", page)
    assert "&lt;U+202E&gt;" in page


def test_every_anchor_is_there_once_and_every_link_has_one(make_run: MakeRun, out: Path) -> None:
    page = page_without_library(write_report([make_run("a"), make_run("b")], out))
    anchors, links = re.findall(r'id="([^"]+)"', page), re.findall(r'href="#([^"]+)"', page)

    assert len(anchors) == len(set(anchors))
    assert set(links) <= set(anchors)
    assert {"run-1-claim-1", "run-2-claim-3"} <= set(anchors)
    assert {"run-1", "run-2"} <= set(links)


def test_an_unfinished_run_shows_its_progress(make_run: MakeRun, out: Path) -> None:
    page = page_without_library(write_report([make_run(result=False)], out))

    assert "4 of 9" in page
    assert "layerscope resume" in page
    assert '<span class="state">incomplete</span>' in page
    assert "problem" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).split("<noscript>")[0]


def test_one_bad_run_hides_no_other(make_run: MakeRun, out: Path) -> None:
    runs = [make_run("torn"), make_run("cut"), make_run("gone", experiment="trial_gone"), make_run("good")]
    (runs[0].path / "run.json").write_text("{", encoding="utf-8")
    (runs[1].path / "result.nc").write_bytes(b"cut short")

    page = html.unescape(page_without_library(write_report(runs, out)))

    assert "the record of this run is damaged" in page
    assert "a saved result is damaged" in page
    assert "there is no such experiment" in page
    assert "facts cross 2.6 blocks later" in page
    assert "3 with problems" in page


def test_a_mistake_in_an_experiment_is_said_in_its_place_and_warned_of(
    make_run: MakeRun, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = experiments.load("trial_trace")
    broken = type(loaded)(**{**vars(loaded), "draw": lambda result: result["nothing"]})
    monkeypatch.setattr(experiments, "load", lambda name: broken)

    with pytest.warns(UserWarning, match="draw of trial_trace failed on this result: KeyError"):
        write_report([make_run()], out)
    page = page_without_library(out)

    assert "draw of trial_trace failed" in page
    assert "facts cross 2.6 blocks later" in page


def test_more_than_ten_exclusions_are_folded(make_run: MakeRun, out: Path) -> None:
    run = make_run()
    result = run.result()
    result["left_out_because"][:] = ["too short"] * 11 + [""] * 19
    del result.attrs["schema"]
    run.save_result(result)

    assert "<summary>The 11 that were left out, and why</summary>" in page_without_library(
        write_report([run], out)
    )


def test_an_experiment_without_a_measure_is_politely_left_out_of_the_map(
    make_run: MakeRun, out: Path
) -> None:
    page = page_without_library(write_report([make_run()], out))

    assert '<table class="map"' not in page
    assert "facts cross 2.6 blocks later" in page


def test_claims_and_figures_to_begin_with_and_all_others_behind_more(make_run: MakeRun, out: Path) -> None:
    page = page_without_library(write_report([make_run(experiment="trial_layers")], out))
    first, _, rest = page.partition('id="run-1"')[2].partition('<details class="more fold"')

    assert (
        "All layers do 0.08 on average" in first.partition("Layer 3 does what")[0]
    )  # the headline index first
    assert "Share by layer" in first
    assert "Share again" not in first
    assert "Share again" in rest
    assert "<summary>More: 1 figure, 3 findings, examples, procedure, settings, command</summary>" in rest


def test_nothing_in_the_page_points_elsewhere(make_run: MakeRun, out: Path) -> None:
    page = page_without_library(write_report([make_run()], out))

    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page)
    assert "default-src 'none'" in html.unescape(page)


def test_no_runs_are_refused(out: Path) -> None:
    with pytest.raises(LayerscopeError, match="no runs"):
        write_report([], out)
