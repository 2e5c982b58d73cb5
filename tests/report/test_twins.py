"""A run beside its untrained twin's: found by what was asked, drawn in one picture, claims in pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerscope.report import write_report
from layerscope.report.sections import section
from layerscope.report.twins import put_beside
from report.made_runs import MakeRun
from report.test_report import page_without_library


@pytest.fixture
def page(make_run: MakeRun, tmp_path: Path) -> str:
    runs = [make_run("a"), make_run("b", untrained=0, weights="6e" * 32)]
    return page_without_library(write_report(runs, tmp_path / "report.html"))


def test_claims_stand_in_pairs_beside_the_twin_s(page: str) -> None:
    assert page.count("Beside the untrained twin</h3>") == 1
    rows = page.partition('<table class="findings twins">')[2].partition("</table>")[0]
    assert rows.count("facts cross 2.6 blocks later than phrases") == 2  # once for each side
    assert "no such claim" not in rows


def test_the_twin_s_curve_is_a_dotted_line_in_the_same_panel(page: str) -> None:
    glance = page.partition('id="layers"')[2].partition("</figure>")[0]

    assert glance.count('"dash":"dot"') == 3  # one for each of the three categories
    assert "Dotted: the untrained twin." in glance
    assert "<h1>What each layer does: english-12l</h1>" in page


def test_findings_are_the_trained_model_s_and_point_to_the_twin_s(page: str) -> None:
    findings = page.partition('id="summary"')[2].partition("</section>")[0]

    assert findings.count("facts cross 2.6 blocks later than phrases") == 1
    assert 'href="#run-1-beside"' in findings
    assert 'id="run-1-beside"' in page


def test_only_what_was_asked_alike_is_put_beside(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a"), make_run("b", untrained=0, texts="ff" * 32), make_run("c", weights="6e" * 32)]
    sections = [section(run, number, beside=tmp_path) for number, run in enumerate(runs, start=1)]

    assert put_beside(sections) == {}


def test_what_only_the_twin_claims_is_told_too(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a"), make_run("b", untrained=0)]
    one, twin = (section(run, number, beside=tmp_path) for number, run in enumerate(runs, start=1))
    lost = one.claims.pop()

    pairs = put_beside([one, twin])[one.anchor].pairs

    assert [own is None for own, _ in pairs] == [False] * len(one.claims) + [True]
    assert pairs[-1][1] is not None
    assert pairs[-1][1].claim == lost.claim
