"""The layer map, dossiers and first sentences of a page, on a model of which one layer does something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from layerscope.report import write_report
from layerscope.report.glossary import GLOSSARY
from layerscope.report.models import ModelOnPage, models_of
from layerscope.report.sections import section
from layerscope.results.citation import bibtex
from report.made_runs import MakeRun
from report.test_report import page_without_library


@pytest.fixture
def page(make_run: MakeRun, tmp_path: Path) -> str:
    runs = [make_run("a", experiment="trial_layers"), make_run("b")]
    return page_without_library(write_report(runs, tmp_path / "report.html"))


@pytest.fixture
def model(make_run: MakeRun, tmp_path: Path) -> ModelOnPage:
    (model,) = models_of([section(make_run(experiment="trial_layers"), 1, beside=tmp_path)], "runs")
    return model


def test_a_layer_that_stands_out_is_full_and_the_others_are_hatched(model: ModelOnPage) -> None:
    assert model.map is not None
    ((group, (row,)),) = model.map.groups

    assert group == "Attention"
    assert [cell.layer for cell in row.cells if cell.stands_out] == [3]
    assert [cell.shade for cell in row.cells] == [100 if layer == 3 else 0 for layer in range(12)]
    assert row.most == "0.900 at 3"
    assert row.anchor == "run-1"
    assert row.cells[3].said == "layer 3: 0.900 (95% CI 0.892 to 0.908); other layers 0.010; stands out"


def test_the_first_sentences_name_what_stands_out_and_the_headline_with_its_evidence(
    model: ModelOnPage,
) -> None:
    said = {one.about: one for one in model.sentences}

    assert said["Phases"].text.startswith("Layers fall into 3 phases")
    assert said["Layers"].text == "Layer 3 stands out in 1 of 1 measure."
    assert said["Attention"].text.startswith("All layers do 0.08 on average")
    assert said["Attention"].anchor == "run-1-claim-3"


def test_phases_stand_under_the_map_with_their_intervals(model: ModelOnPage) -> None:
    assert model.map is not None
    assert model.map.phases == ((3, "from 0"), (1, "from 3 (3 to 3)"), (8, "from 4 (4 to 4)"))


def test_a_dossier_holds_the_layer_s_findings_examples_and_place(model: ModelOnPage) -> None:
    third, second = model.dossiers[3], model.dossiers[2]

    assert third.sentences[0] == "Phase 2 of 3: layer 3."
    assert "share done here" in third.sentences[1]
    assert [card.claim.text for _, card in third.claims] == ["Layer 3 does what no other does."]
    assert [one.heading for one in third.examples] == ["layer 3: examples"]
    assert [(place.rank, place.value, place.stands_out) for place in third.places] == [("1", "0.900", True)]
    assert second.claims == ()  # a null of the layer is no finding in it
    assert second.examples == ()
    assert 'ls.layers("runs")' in third.python


def test_the_page_shows_them(page: str) -> None:
    assert page.count('class="cell') == 12
    assert page.count('class="cell out"') == 1
    assert len(re.findall(r'<details class="dossier" id="layer-\d+"', page)) == 12
    assert 'href="#layer-3"' in page
    assert page.index("<h2>Attention") < page.index("<h2>Other questions")
    assert "<script>alert" not in page


def test_several_models_have_a_map_each_and_their_name_in_every_row(
    make_run: MakeRun, tmp_path: Path
) -> None:
    runs = [
        make_run("a", experiment="trial_layers"),
        make_run("b", experiment="trial_layers", weights="6e" * 32),
    ]
    page = page_without_library(write_report(runs, tmp_path / "report.html"))

    assert page.count('<table class="map"') == 2
    assert 'id="m2-layer-3"' in page
    assert page.count("What each layer of english-12l does") == 2


def test_two_runs_of_one_experiment_are_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [
        make_run("one", experiment="trial_layers"),
        make_run("two", experiment="trial_layers"),
        make_run("three"),
    ]
    page = page_without_library(write_report(runs, tmp_path / "report.html"))
    contents = page.partition("</nav>")[0]

    assert [f'<span class="name">{name}</span>' in contents for name in ("one", "two", "trial_trace")] == [
        True
    ] * 3
    assert page.count('<table class="map"') == 1


def test_the_first_use_of_a_term_is_explained_and_only_that(page: str) -> None:
    assert page.count('href="#term-attention-sink"') == 1
    assert all(f'id="term-{term.replace(" ", "-")}"' in page for term in GLOSSARY)


def test_the_page_says_how_it_is_cited(page: str) -> None:
    assert page.count(bibtex()) == 1


def test_docs_hold_the_same_glossary() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8")

    assert [line for line in docs.splitlines() if line.startswith("- ")] == [
        f"- **{term}**: {meaning}" for term, meaning in GLOSSARY.items()
    ]


def test_the_glossary_says_the_threshold_of_roles() -> None:
    from layerscope.atlas.roles import ROLES, THRESHOLD

    for role in ROLES:
        assert f"more than {THRESHOLD:.0%}" in GLOSSARY[role.name]
