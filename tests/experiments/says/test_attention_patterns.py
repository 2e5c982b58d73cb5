"""What attention_patterns says, from sums through its own conclusion: both ways, of nothing, of too little."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
import xarray as xr

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.attention_patterns import Settings, claims, conclude
from layerscope.experiments.attention_patterns.measure.fixed_queries import FIXED_SUMS
from layerscope.experiments.attention_patterns.measure.sentences import SENTENCE_SUMS
from layerscope.experiments.attention_patterns.measure.tables import CORNER_SUMS, CORNERS, SUMS
from layerscope.maths.attention import DEFINITIONS

LAYERS, HEADS, QUERIES = 4, 2, 100.0
NAMED = {"previous token": (1, 0), "duplicate token": (2, 1), "induction": (3, 0), "dependency": (2, 0)}
"""The head that gives each kind of key most of its attention."""

_UNIFORM = {
    "queries": 1.0, "every": 1.0, "first token": 0.02, "self": 0.02, "previous token": 0.05, "distance": 30.0,
    "entropy": 3.0, "span": 20.0, "entropy queries": 1.0, "duplicate token": 0.02, "with duplicate": 0.5,
    "induction": 0.02, "with induction": 0.4, "fixed": 0.5, "fixed distance": 20.0, "distance from 11": 0.2,
    "distance from 51": 0.1, "deviation": 0.4, "dependency": 0.1, "to head": 0.05, "to dependent": 0.05,
}  # fmt: skip
"""Sums for one query, where attention falls on all keys alike; offsets and bins that are not here: 0.01."""


def _sums(
    names: tuple[str, ...],
    unit: str,
    along: str,
    changed: Mapping[str, np.ndarray] | None = None,
    *,
    units: int = 8,
    noise: float = 0.03,
) -> xr.DataArray:
    """Sums give or take [unit definition layer head sum]; what is changed is by layer and head."""
    rng = np.random.default_rng(0)
    values = np.empty((units, len(DEFINITIONS), LAYERS, HEADS, len(names)))
    for place, name in enumerate(names):
        own = (changed or {}).get(name, np.full((LAYERS, HEADS), _UNIFORM.get(name, 0.01)))
        values[..., place] = QUERIES * own
    values *= 1 + noise * rng.normal(size=(units, 1, LAYERS, HEADS, len(names)))
    for total in ("queries", "every", "with duplicate", "with induction", "fixed", "entropy queries"):
        if total in names:  # as many queries in every text: shares differ, totals do not
            values[..., names.index(total)] = QUERIES * _UNIFORM[total]
    return xr.DataArray(
        values.astype(np.float32),
        dims=(unit, "definition", "layer", "head", along),
        coords={"definition": list(DEFINITIONS), "layer": range(LAYERS), along: list(names)},
    )


def _one_head(name: str, most: float) -> np.ndarray:
    found = np.full((LAYERS, HEADS), _UNIFORM[name])
    found[NAMED[name]] = most
    return found


def _by_layer(*values: float) -> np.ndarray:
    return np.repeat(np.array(values)[:, None], HEADS, axis=1)


RISES = _by_layer(0.05, 0.2, 0.6, 0.1)
FAR = _by_layer(20, 10, 5, 15)
DEVIATES = _by_layer(0.2, 0.4, 0.8, 0.6)


def _passages(units: int = 8, *, first: np.ndarray = RISES, fixed: bool = True) -> xr.Dataset:
    changed = {
        "first token": first,
        "fixed distance": FAR,
        "deviation": DEVIATES,
        "previous token": _one_head("previous token", 0.8),
    }
    variables = {
        "model_sums": _sums(SUMS, "passage", "sum", changed, units=units),
        "uniform_sums": _sums(SUMS, "passage", "sum", units=units, noise=0),
        **{
            f"{source}_sums": _sums(CORNER_SUMS, "passage", "corner_sum", changed, units=units)
            for source in CORNERS
        },
        FIXED_SUMS: _sums(
            ("fixed", "fixed distance", *(f"distance from {n}" for n in (0, 1, 2, 6, 11, 51))),
            "passage",
            "fixed_sum",
            {"fixed distance": 0.9 * FAR},
            units=units,
        ),
        "value_source": ("layer", ["what the head writes"] * LAYERS),
        "fixed_queries": ("end", [10, 20] if fixed else [-1, -1]),
    }
    if not fixed:
        for name in ("model_sums", "uniform_sums"):
            sums = variables[name]
            assert isinstance(sums, xr.DataArray)
            variables[name] = sums.where(~sums["sum"].str.contains("fixed|offset"), 0)
        del variables[FIXED_SUMS]
    return xr.Dataset(variables).assign_coords(
        passage=[f"p{place}" for place in range(units)],
        tokens=("passage", [40] * units),
        end=["first", "behind the last"],
    )


def _repeats(most: float = 0.45) -> xr.Dataset:
    changed = {
        "duplicate token": _one_head("duplicate token", most),
        "induction": _one_head("induction", 0.3),
    }
    return xr.Dataset(
        {
            f"repeat_{source}_sums": _sums(SUMS, "sample", "sum", changed if source == "model" else None)
            for source in ("model", "uniform", "own_mean")
        }
    )


def _sentences() -> xr.Dataset:
    names = (*SENTENCE_SUMS, "tag NOUN", "tag VERB")
    changed = {"dependency": _one_head("dependency", 0.5)}
    variables = {
        f"{source}_sentence_sums": _sums(
            names, "sentence", "sentence_sum", changed if source in ("model", "corner") else None, units=12
        )
        for source in ("model", "uniform", *CORNERS)
    }
    return xr.Dataset(variables).assign_coords(
        sentence=[f"s{place}" for place in range(12)],
        document=("sentence", [f"d{place}" for place in range(12)]),
    )


@cache
def _result() -> xr.Dataset:
    stages = {"passages": _passages(), "repeats": _repeats(), "sentences": _sentences()}
    return conclude(stages, Settings(resamples=200))


def _of_passages(passages: xr.Dataset) -> xr.Dataset:
    """Where neither random text nor a treebank was read."""
    return conclude(
        {"passages": passages, "repeats": xr.Dataset(), "sentences": xr.Dataset()}, Settings(resamples=50)
    )


def _said(result: xr.Dataset, variable: str) -> list[Claim]:
    return [claim for claim in claims(result) if claim.select["variable"] == variable]


def test_the_layer_that_rests_on_the_first_token_most_is_named_with_its_share() -> None:
    most = _said(_result(), "resting_share")[0]

    assert most.text.startswith("Layer 2 gives the first token the most attention of any layer: 59.8%")
    assert most.value == pytest.approx(0.6, abs=0.02)
    assert "uniform attention 2" in most.caveat
    assert "best of 4, interval for all of them at once" in most.caveat


def test_a_block_of_distributed_attention_ends_and_returns_between_layers() -> None:
    result = _result()
    end, back = _said(result, "block_end")[0], _said(result, "block_return")[0]

    assert end.value == pytest.approx(1.25, abs=0.05)
    assert end.text.startswith("The early layers of distributed attention end at layer 1.2")
    assert back.value == pytest.approx(2.6, abs=0.05)
    assert back.text.startswith("Distributed attention returns at layer 2.")
    assert "by threshold 0.1: " in end.caveat


def test_a_block_without_an_end_or_a_beginning_or_a_return_is_said_so() -> None:
    never = _of_passages(_passages(first=_by_layer(0.05, 0.1, 0.1, 0.1)))
    at_once = _of_passages(_passages(first=_by_layer(0.5, 0.2, 0.6, 0.6)))

    assert _said(never, "block_end")[0].text == (
        "No layer reaches a share of 0.3 on the first token, so attention stays distributed in this model."
    )
    assert _said(never, "block_return") == []
    assert _said(at_once, "block_end")[0].text.startswith(
        "The first layer already reaches a share of 0.3 on the"
    )
    back = _said(at_once, "block_return")[0]
    assert back.text.startswith(
        "Distributed attention does not return: the first token keeps 0.3 up to the last"
    )
    assert "also below that in between: layer 1" in back.caveat


def test_the_layers_that_reach_back_least_and_most_are_named() -> None:
    least, most = _said(_result(), "fixed_distance")

    assert least.text.startswith("Attention reaches back least in layer 2: 9.9 tokens")
    assert most.text.startswith("Attention reaches back most in layer 0: 40")
    assert "tokens on average" in most.text
    assert "uniform attention 40" in most.caveat
    assert "without first token 40" in most.caveat


def test_without_fixed_queries_nothing_is_said_of_distances() -> None:
    result = _of_passages(_passages(fixed=False))

    assert _said(result, "fixed_distance") == []
    assert "Passages are too short for distances" in result.attrs["cautions"]
    assert "nothing is said about syntax" in result.attrs["cautions"]


def test_the_layers_whose_patterns_depend_least_and_most_on_words_are_named() -> None:
    least, most = _said(_result(), "variability")

    assert least.text.startswith(
        "Patterns depend least on the words in layer 0: they differ from their mean by 10"
    )
    assert most.text.startswith(
        "Patterns depend most on the words in layer 2: they differ from their mean by 40"
    )


@pytest.mark.parametrize(
    ("variable", "begins", "share"),
    [
        ("head_previous_token_share", "L1H0 is the strongest previous-token head: ", 0.8),
        ("head_repeat_duplicate_share", "L2H1 is the strongest duplicate-token head: ", 0.9),
        ("head_repeat_induction_share", "L3H0 is the strongest induction head: ", 0.75),
        ("head_dependency_share", "L2H0 is the strongest head for syntax: ", 0.5),
    ],
)
def test_heads_that_do_one_thing_are_named_with_their_share(variable: str, begins: str, share: float) -> None:
    result = _result()
    head = _said(result, variable)[0]

    assert head.text.startswith(begins)
    assert head.value == pytest.approx(share, abs=0.03)
    assert "best of 8, interval for all of them at once" in head.caveat
    here = result[f"{variable}_low"].sel(definition=DEFINITIONS[0], layer=head.select["layer"])
    assert head.low is not None
    assert head.low <= float(here[head.select["head"]])


def test_attention_along_dependencies_is_said_beside_positions_alone() -> None:
    syntax = _said(_result(), "dependency_share")[0]

    assert syntax.text.startswith("Attention follows dependencies most in layer 2: 30")
    assert "uniform attention 10" in syntax.caveat
    assert syntax.n == 12


def test_one_passage_has_no_interval_and_is_said_without() -> None:
    most = _said(_of_passages(_passages(units=1)), "resting_share")[0]

    assert most.low is None
    assert "CI" not in most.text


def test_the_one_distance_that_takes_over_half_of_a_heads_attention_is_found() -> None:
    passages = _passages()
    offset = 0.01 * np.ones((LAYERS, HEADS))
    offset[1, 1] = 0.3  # of 0.5 at fixed queries
    passages["model_sums"] = _sums(SUMS, "passage", "sum", {"offset 3": offset})

    found = _of_passages(passages).fixed_offset

    assert float(found[1, 1]) == 3
    assert int(np.isfinite(found).sum()) == 1


def test_its_measure_over_depth_has_replicates_of_the_whole_curve_and_its_null() -> None:
    measured = experiments.load("attention_patterns").over_depth(_result())["first_token_share"]

    assert measured.draws.sizes == {"draw": 200, "layer": LAYERS}
    np.testing.assert_allclose(measured.draws.mean("draw"), measured.value, rtol=0.02)
    np.testing.assert_allclose(measured.null, 0.02, rtol=1e-5)
    assert int(measured.value.values.argmax()) == 2


def test_the_last_bin_is_what_nearer_distances_leave_and_all_bins_add_up_to_one() -> None:
    shares = _result().bin_share.sel(definition=DEFINITIONS[0])

    np.testing.assert_allclose(shares.sum("distance_bin"), 1, rtol=1e-5)
    np.testing.assert_allclose(shares.isel(distance_bin=-1), 0.18, atol=0.02)


def test_a_distance_that_no_key_of_a_layer_has_is_unknown_and_not_zero() -> None:
    passages = _passages()
    windowed = np.full((LAYERS, HEADS), 0.1)
    windowed[1] = 0
    passages["uniform_sums"] = _sums(SUMS, "passage", "sum", {"distance from 51": windowed}, noise=0)

    far = _of_passages(passages).bin_share.sel(definition=DEFINITIONS[0], distance_bin="51–200")

    np.testing.assert_array_equal(np.isnan(far), [False, True, False, False])


def test_each_statistic_is_the_ratio_of_its_two_sums() -> None:
    passages, sentences = _passages(), _sentences()
    for sums, changed in (
        (passages.uniform_sums, {"every": 80, "entropy queries": 50, "self": 3}),
        (sentences.uniform_sentence_sums, {"every": 80, "to head": 7, "to dependent": 3}),
    ):
        for name, value in changed.items():
            sums.loc[{sums.dims[-1]: name}] = value

    result = conclude(
        {"passages": passages, "repeats": xr.Dataset(), "sentences": sentences}, Settings(resamples=20)
    )

    expected = {
        "kept_share": 80 / 100, "first_token_share": 2 / 80, "entropy": 300 / 50, "span": 2000 / 50,
        "distance": 3000 / 80, "fixed_distance": 2000 / 50, "own_token_share": 3 / 80,
        "previous_token_share": 5 / 80, "duplicate_share": 2 / 50, "induction_share": 2 / 40,
        "dependency_share": 10 / 80, "to_head_share": 7 / 80, "to_dependent_share": 3 / 80,
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(result[f"uniform_{name}"], value, rtol=0.02, err_msg=name)


def test_attention_rests_on_the_first_token_on_sink_tokens_or_there_by_what_is_written() -> None:
    passages = _passages()
    every, _, no_sinks, by_value = DEFINITIONS
    sums = passages.model_sums
    sums.loc[{"definition": by_value, "sum": "first token"}] *= 0.5
    for definition, share in ((every, 0.95), (no_sinks, 0.7), (by_value, 0.8)):
        sums.loc[{"definition": definition, "sum": "every"}] = share * QUERIES

    result = _of_passages(passages)

    first, sinks, written = result.resting_share
    np.testing.assert_allclose(written, first * 0.5 / 0.8, rtol=1e-5)
    # Of what is not on other tokens, a learned sink takes 5%.
    np.testing.assert_allclose(sinks, 0.3 - 0.05, rtol=1e-5)
    np.testing.assert_array_equal(result.sink_heads, [0, 0, 2, 0])


def test_sentences_weigh_by_what_they_hold_whatever_document_they_are_of() -> None:
    sentences = _sentences()
    sentences["document"] = ("sentence", ["one"] * 11 + ["other"])
    sums = sentences.model_sentence_sums
    sums[{"sentence": -1}] = 3 * sums[{"sentence": 0}]

    result = conclude(
        {"passages": _passages(), "repeats": xr.Dataset(), "sentences": sentences}, Settings(resamples=20)
    )

    every = sums.sel(definition=DEFINITIONS[0]).sum("sentence").mean("head")
    share = every.sel(sentence_sum="dependency") / every.sel(sentence_sum="every")
    np.testing.assert_allclose(result.dependency_share.sel(definition=DEFINITIONS[0]), share, rtol=1e-5)
