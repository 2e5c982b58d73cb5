"""A run beside its untrained twins: found by what was asked, drawn in one picture, numbers in one table."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from layerscope.report import write_report
from layerscope.report.sections import section
from layerscope.report.write import apart
from layerscope.results.store import RunFolder
from report.made_runs import MakeRun, made_result
from report.test_report import page_without_library


def of_twin(make_run: MakeRun, seed: int) -> RunFolder:
    run, result = make_run(f"t{seed}", untrained=seed, weights="6e" * 32), made_result()
    later = result.mean_transition + 0.2 * seed * (result.category == "facts")
    later.attrs = result.mean_transition.attrs
    run.save_result(result.assign(mean_transition=later).assign_attrs(experiment="trial_trace"))
    return run


@pytest.fixture
def runs(make_run: MakeRun) -> list[RunFolder]:
    return [make_run("a"), *(of_twin(make_run, seed) for seed in range(1, 6))]


@pytest.fixture
def page(runs: list[RunFolder], tmp_path: Path) -> str:
    return page_without_library(write_report(runs, tmp_path / "report.html"))


def test_twins_stand_beside_the_model_and_nowhere_else(page: str, runs: list[RunFolder]) -> None:
    assert page.count("<h4>Beside untrained twins") == 1
    assert page.count('class="run"') == 1
    assert "<h1>What each layer of english-12l does</h1>" in page
    assert [len(side) for side in apart(runs)] == [1, 5]


def test_a_table_gives_the_twins_mean_range_and_prediction_interval(page: str) -> None:
    rows = page.partition('<table class="findings sortable">')[2].partition("</table>")[0]

    first = rows.partition("facts cross 2.6 blocks later than phrases")[2].partition("</tr>")[0]
    assert ">2.6 [1.9, 3.2]</td>" in first
    assert ">3.2 (2.8 to 3.6)" in first  # 2.6 and 0.2, 0.4, 0.6, 0.8, 1.0
    # 3.2 ± 2.776 × 0.316 × √1.2
    assert "95% prediction interval 2.2 to 4.2" in first
    assert "5 untrained twins. A finding that untrained models show too" in page


def test_fewer_than_five_are_shown_and_decide_nothing(runs: list[RunFolder], tmp_path: Path) -> None:
    for run in runs[-2:]:
        (run.path / "run.json").unlink()
    page = page_without_library(write_report(runs[:4], tmp_path / "report.html"))

    assert "3 untrained twins. Fewer than 5 are shown and decide nothing." in page
    assert "prediction interval" not in page
    assert ">3.0 (2.8 to 3.2)" in page


def test_their_curves_are_dotted_lines_in_the_same_panel(page: str) -> None:
    packed = page.partition('id="run-1-twin"')[2].partition('<script type="application/gzip">')[2]
    drawn = gzip.decompress(base64.b64decode(packed.partition("</script>")[0])).decode()

    assert drawn.count('"dash":"dot"') == 15  # one for each of the three categories and each twin
    assert "Dotted: 5" in page.partition('id="run-1-twin"')[2].partition("</figure>")[0]


def test_only_what_was_asked_alike_is_put_beside(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a"), make_run("b", untrained=1, texts="ff" * 32), make_run("c", weights="6e" * 32)]

    assert section(runs[0], 1, beside=tmp_path).twins is None
    assert [len(side) for side in apart(runs)] == [3, 0]


def test_twins_that_lie_beside_a_run_are_found_though_it_alone_is_named(
    runs: list[RunFolder], tmp_path: Path
) -> None:
    found = section(runs[0], 1, beside=tmp_path).twins

    assert found is not None
    assert found.seeds == (1, 2, 3, 4, 5)


def test_a_twin_alone_has_its_own_section(make_run: MakeRun, tmp_path: Path) -> None:
    page = page_without_library(write_report([make_run("b", untrained=1)], tmp_path / "report.html"))

    assert page.count('class="run"') == 1
    assert "Beside untrained twins" not in page


def test_why_a_twin_has_no_result_is_said(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a"), make_run("b", untrained=1)]
    record = runs[1].record
    record.state, record.refused = "refused", "no prompt is left"
    runs[1].save_record(record)

    page = page_without_library(write_report(runs, tmp_path / "report.html"))

    assert "untrained twin 1: no prompt is left" in page


def test_a_claim_of_a_twin_that_fails_hides_nothing(
    runs: list[RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerscope import experiments

    loaded = experiments.load("trial_trace")

    def fails_on_twins(result: xr.Dataset) -> list[Any]:
        if float(result.mean_transition.sel(category="facts")) != 7.8:
            raise KeyError("lost")
        return loaded.claims(result)

    broken = type(loaded)(**{**vars(loaded), "claims": fails_on_twins})
    monkeypatch.setattr(experiments, "load", lambda name: broken)

    with pytest.warns(UserWarning, match="claims of untrained twin"):
        shown = section(runs[0], 1, beside=tmp_path)

    assert shown.claims
    assert any("claims of untrained twin 1 of trial_trace failed" in problem for problem in shown.problems)
