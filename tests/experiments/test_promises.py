"""What every experiment promises, whatever it measures. A new file in experiments/ is tested without being named."""

import json
import pathlib
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr

import layerscope as ls
import treebanks
import zoo
from layerscope import LayerscopeError, experiments
from layerscope.experiments.logit_lens.figures.shown import TABLE
from layerscope.plots.theme import COLUMN, MOST_LEADS
from layerscope.results.netcdf import read_result, write_result
from layerscope.results.schema import check_promises

_WORDS = (
    "the red fox met old dog in town a small bird sang and ran to of stone "
    "reds mets olds dogs towns birds stones foe toe them then"
)
TEXTS = {
    "prompts": [
        {
            "id": f"{kind}-{i}",
            "category": kind,
            "prompt": f"the {kind} fox {word} the dog in the",
            "subject": word,
            "answer": "",
        }
        for kind in ("red", "old")
        for i, word in enumerate(("met", "sang", "ran to"))
    ],
    "passages": [
        "the red fox met the old dog in the town",
        "a small bird sang and the dog ran to the red town of stone",
    ],
    "treebank": treebanks.small(documents=12),
    "words": _WORDS.split(),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "causal_trace": {"samples": 2, "noise": "9sd", "smallest_range": 1e-9},
    "syntax_probe": {"fewest": 5, "resamples": 20},
    "word_position_probe": {
        "prompt_words": 4,
        "most_pieces": 2,
        "train_prompts": 24,
        "test_prompts": 16,
        "causal_prompts": 4,
        "moved_word": 1,
        "fewest": 1,
        "resamples": 50,
    },
    "weight_directions": {
        "rater": "own embedding",
        "random_directions": 100,
        "rotations": 8,
        "untrained_layers": 1,
        "directions": 12,
        "shortest_token": 1,
        "edits": 2,
        "edit_texts": 2,
        "resamples": 20,
    },
    "word_formation": {"pairs": 4, "twins": 6, "contexts": 2, "smallest": 1e-9, "resamples": 50},
}
OUT_OF_REACH: dict[str, tuple[str, ...]] = {
    "attention_knockout": ("gptj",),
    "attention_patterns": ("gptj",),
    "final_token_attention": ("gptj",),
    "first_token_attention": ("gptj",),
    "context_reading": ("gptj", "recurrent_gemma"),
}


def run(name: str, family: str = "llama", model: Any = None, **more: Any) -> xr.Dataset:
    takes = experiments.load(name).takes
    texts = {kind: TEXTS[kind] for kind in takes}
    few = {"resamples": 40} if "resamples" in experiments.load(name).settings.model_fields else {}
    settings = few | SETTINGS.get(name, {}) | more
    asked = model or zoo.layered(family, flipped=True)
    return ls.run(name, asked, **texts, **settings, progress=False)


@pytest.fixture(scope="module", params=experiments.names())
def made(request: pytest.FixtureRequest) -> tuple[str, xr.Dataset]:
    return request.param, run(request.param)


def test_the_same_seed_gives_the_same_numbers(made: tuple[str, xr.Dataset]) -> None:
    name, first = made

    again = run(name)

    assert list(first.variables) == list(again.variables)
    for variable in first.variables:
        assert first[variable].values.tobytes() == again[variable].values.tobytes(), variable


def test_variables_have_names_units_and_known_dimensions(made: tuple[str, xr.Dataset]) -> None:
    _, result = made

    check_promises(result, where="this test")


def test_the_result_survives_the_disk(made: tuple[str, xr.Dataset], tmp_path: pathlib.Path) -> None:
    _, result = made

    write_result(tmp_path / "result.nc", result)

    xr.testing.assert_equal(read_result(tmp_path / "result.nc"), result)


def test_the_docstring_asks_a_question_and_names_its_source(made: tuple[str, xr.Dataset]) -> None:
    experiment = experiments.load(made[0])

    assert experiment.question.endswith("?")
    assert "Beware:" in experiment.doc
    assert "Source:" in experiment.doc
    assert experiments.question(made[0]) == experiment.question


def test_every_setting_has_a_description_and_settings_are_frozen(made: tuple[str, xr.Dataset]) -> None:
    settings = experiments.load(made[0]).settings

    assert all(field.description for field in settings.model_fields.values())
    with pytest.raises(ValueError, match="frozen"):
        settings().seed = 3  # type: ignore[misc]
    assert json.loads(settings().model_dump_json()) == settings().model_dump(mode="json")


def test_claims_rest_on_cells_that_exist(made: tuple[str, xr.Dataset]) -> None:
    name, result = made

    claims = experiments.load(name).claims(result)

    assert claims
    for claim in claims:
        labels = {key: value for key, value in claim.select.items() if key != "variable"}
        cell = result[claim.select["variable"]].sel(labels)
        if claim.value is not None and cell.size == 1:
            np.testing.assert_allclose(float(cell), claim.value)
        if claim.low is not None and claim.high is not None:
            assert claim.low <= claim.value <= claim.high


def test_claims_declare_what_an_untrained_twin_must_come_to(made: tuple[str, xr.Dataset]) -> None:
    name, result = made

    for claim in experiments.load(name).claims(result):
        assert claim.untrained is not None, claim.text
        declared, reason = claim.untrained
        assert len(reason.split()) > 2, claim.text
        if declared == "null":
            assert claim.significant is not None, claim.text  # only what compares has a null to come to


def test_over_depth_lies_on_layer_or_depth(made: tuple[str, xr.Dataset]) -> None:
    name, result = made

    measures = experiments.load(name).over_depth(result)

    assert measures
    for values in measures.values():
        assert {"value", "low", "high"} <= set(values.data_vars)
        assert set(values.value.dims) in ({"depth"}, {"layer"})
        assert np.isfinite(values.value).any()
        assert len(values.attrs.get("label", "").split()) <= 6


def test_figures_hold_data_and_name_their_axes(made: tuple[str, xr.Dataset]) -> None:
    figures = ls.draw(made[1])

    assert figures
    for name, figure in figures.items():
        assert isinstance(figure, go.Figure)
        assert figure.data, name
        assert any(axis.title.text for axis in figure.select_xaxes()), name


def test_lead_figures_stand_side_by_side(made: tuple[str, xr.Dataset]) -> None:
    drawn = {name: figure.layout for name, figure in ls.draw(made[1]).items()}
    leads = {name: layout for name, layout in drawn.items() if not layout.meta.get("more")}

    assert 1 <= len(leads) <= MOST_LEADS
    assert list(drawn)[: len(leads)] == list(leads)
    for name, layout in leads.items():
        if name == TABLE:  # as many columns as the prompt has tokens: it has a row of its own
            continue
        height = layout.height - layout.meta["title_height"] - layout.meta.get("menu_height", 0)
        assert layout.meta["min_width"] <= COLUMN, name
        assert 300 <= height <= 380, name


def test_unknown_settings_are_answered_with_the_nearest_name(made: tuple[str, xr.Dataset]) -> None:
    with pytest.raises(LayerscopeError, match="expected  level"):
        experiments.settings_of(experiments.load(made[0]), {"levell": 0.9})


@pytest.mark.parametrize("family", ["gpt2", "gptj", "recurrent_gemma", "gemma2"])
def test_every_experiment_runs_on_families_of_every_kind(made: tuple[str, xr.Dataset], family: str) -> None:
    if family in OUT_OF_REACH.get(made[0], ()):
        # Where attention cannot be reached, what rests on it is refused by name, as the load check found it.
        with pytest.raises(LayerscopeError, match=r"not available on|cannot be separated"):
            run(made[0], family)
        return
    result = run(made[0], family)

    assert result.attrs["experiment"] == made[0]
    assert ls.draw(result)


@pytest.mark.slow
def test_the_untrained_twin_is_asked_like_any_model(made: tuple[str, xr.Dataset]) -> None:
    name, trained = made
    twin = ls.untrained_twin(zoo.layered("llama", flipped=True))

    result = run(name, model=twin)

    curves = [experiments.load(name).over_depth(one) for one in (trained, result)]
    assert [one.sizes for one in curves[0].values()] == [one.sizes for one in curves[1].values()]
    assert result.attrs["model"] == f"{trained.attrs['model']} untrained"
    assert experiments.load(name).claims(result)
    nothing_left = "left_out_because" in result and bool((result.left_out_because != "").all())
    assert ls.draw(result) or nothing_left  # a twin may know no answer at all


def test_an_unknown_experiment_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(LayerscopeError, match="causal_trace"):
        experiments.load("casual_trace")


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments.names())
@pytest.mark.parametrize("family", ["gemma3n_text", "doge", "deepseek_v32", "beam", "phi3_longrope"])
def test_it_runs_or_is_refused_by_name_on_families_unlike_others(family: str, name: str) -> None:
    model = zoo.layered(family)
    try:
        result = run(name, model=model)
    except LayerscopeError as refusal:
        assert model.facts.name in str(refusal)  # noqa: PT017
        assert "found" in str(refusal)  # noqa: PT017
        return
    assert experiments.load(name).draw(result)
