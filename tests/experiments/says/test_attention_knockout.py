"""What attention_knockout says, from samples through its own conclusion: both ways, of nothing, of too little."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.attention_knockout import Settings, claims, conclude, draw
from layerscope.experiments.attention_knockout.conclude.maps import _with_nothing
from turned import compares, said_of

LAYERS, FATES = 6, ("renormalise", "first", "mean")
SETS = ("1 to 3 back", "4 to 47 back", "48 back and more", "4 back and more", "first token")
PROMPT_SETS = ("the subject", "other tokens", "first token")


def _profile(place: np.ndarray) -> np.ndarray:
    """A bump over layers at a place."""
    return 0.2 * np.exp(-((np.arange(LAYERS) - place[..., None]) ** 2))


def _kept(divergence: np.ndarray, loss: np.ndarray, control: np.ndarray, prefix: str = "") -> dict[str, Any]:
    """Variables over rows and sets, alike wherever removed attention goes; 20% of attention is cut, as at random."""
    unit, sets = ("prompt", "prompt_edges") if prefix else ("token", "edges")
    fates = (len(divergence), divergence.shape[1], len(FATES), 1, LAYERS)
    by_fate, by_draw = (unit, sets, "fate", "window", "layer"), (unit, sets, "window", "sample", "layer")
    mass = np.full((*divergence.shape[:2], 1, LAYERS), 0.2)
    found = {
        "divergence": (by_fate, np.broadcast_to(divergence[:, :, None, None], fates)),
        "loss": (by_fate, np.broadcast_to(loss[:, :, None, None], fates)),
        "mass": ((unit, sets, "window", "layer"), mass),
        "control_divergence": (by_draw, control[:, :, None, None]),
        "control_loss": (by_draw, control[:, :, None, None]),
        "control_mass": (by_draw, mass[:, :, :, None]),
    }
    return {f"{prefix}{name}": variable for name, variable in found.items()}


_AXES = {"fate": list(FATES), "window": [1], "layer": range(LAYERS)}


def _passages(
    n: int = 8, *, near: float = 2, far: float = 2, keys: float = 2, cost: float = 0.0, times: float = 1.0
) -> xr.Dataset:
    """Two targets a passage: near and far context needed in some layers, give or take.

    Args:
        n: passages.
        near, far: the layer that each is needed in.
        keys: the layer in which random keys of far context matter.
        cost: what cutting far context in layer 4 costs, in nats.
        times: how much more than random keys near context matters in layer 1.
    """
    rng = np.random.default_rng(0)
    wobble = rng.normal(scale=0.2, size=(n, len(SETS))).repeat(2, axis=0)
    at = np.array([near, (near + far) / 2, far, far, near])
    divergence = _profile(at + wobble)
    control = _profile(np.array([near, (near + far) / 2, keys, far, near]) + wobble)
    control[:, 0, 1] = divergence[:, 0, 1] / (times * np.exp(0.05 * wobble[:, 0]))
    loss = 0.02 * rng.normal(size=(n, *divergence.shape[1:])).repeat(2, axis=0)
    loss[:, 2, 4] += cost
    return xr.Dataset(
        _kept(divergence, loss, control) | {"left_out_because": ("passage", np.array([""] * n))},
        coords={
            "passage": [f"p{i}" for i in range(n)],
            "token_passage": ("token", np.repeat([f"p{i}" for i in range(n)], 2)),
            "token_unread": ("token", np.zeros(2 * n, dtype=int)),
            "edges": list(SETS),
            **_AXES,
        },
    )


def _prompts(
    n: int = 8, *, first: float = 2, second: float = 2, cost: float = 0.0, times: float = 1.0
) -> xr.Dataset:
    """Prompts of two categories that need their subject in some layers; cutting it in layer 3 costs something."""
    rng = np.random.default_rng(1)
    wobble = rng.normal(scale=0.2, size=(2 * n, 1))
    at = np.concatenate([np.full((n, 3), first), np.full((n, 3), second)]) + wobble
    divergence, loss = _profile(at), 0.02 * rng.normal(size=(2 * n, 3, LAYERS))
    loss[:, 0, 3] += cost
    control = divergence.copy()
    control[:, 0, 2] = divergence[:, 0, 2] / (times * np.exp(0.05 * wobble[:, 0]))
    names = np.array(["near"] * n + ["far"] * n)
    return xr.Dataset(
        _kept(divergence, loss, control, "prompt_")
        | {"prompt_left_out_because": ("prompt", np.array([""] * 2 * n)), "prompts_given": 2 * n},
        coords={
            "prompt": [f"q{i}" for i in range(2 * n)],
            "prompt_category": ("prompt", names),
            "prompt_edges": list(PROMPT_SETS),
            **_AXES,
        },
    )


def _result(passages: xr.Dataset | None = None, prompts: xr.Dataset | None = None) -> xr.Dataset:
    nothing = xr.Dataset()
    parts = {
        "passages": nothing if passages is None else passages,
        "prompts": nothing if prompts is None else prompts,
    }
    return conclude(parts, Settings(resamples=200))


@cache
def _claims(about: str, n: int, **how: float) -> list[Claim]:
    kept = {about: (_prompts if about == "prompts" else _passages)(n, **how)}
    return list(claims(_result(**kept)))


def _said(name: str, *, n: int = 8, labels: dict[str, Any] | None = None, **how: float) -> Claim:
    about = "prompts" if name.startswith("prompt_") or name == "difference" else "passages"
    return said_of(_claims(about, n, **how), name, **(labels or {}))


FAR, NEAR = "context ≥ 48 tokens back", "context 1-3 tokens back"
SUBJECT = "the last token from the subject"


@pytest.mark.parametrize(
    ("name", "labels", "one", "other", "says", "opposite", "nothing"),
    [
        ("far_less_near", {}, {"near": 1, "far": 4}, {"near": 4, "far": 1},
         "Context ≥ 48 tokens back is needed 2.", f"layers earlier than {NEAR} (95% CI ",
         f"difference in depth between needing {FAR} and {NEAR}"),
        ("far_less_near_beyond_control", {}, {"near": 2, "far": 4, "keys": 2}, {"near": 2, "far": 2, "keys": 4},
         "Beyond what random keys show, context ≥ 48 tokens back is needed 1.", f"layers earlier than {NEAR} (95% CI ",
         f"difference in depth between needing {FAR} and {NEAR} beyond that of random keys"),
        ("lost", {}, {"cost": 0.3}, {"cost": -0.3},
         f"Cutting {FAR} costs most in layer 4: 0.29 nats", f"Cutting {FAR} adds most in layer 4: 0.3",
         "cost of cutting any range, in the next token's log-probability"),
        ("relative_excess", {"edges": SETS[0]}, {"times": 3}, {"times": 1 / 3},
         f"Cutting {NEAR} in layer 1 changes predictions more than cutting random keys: relative excess 0.",
         f"Cutting {NEAR} in layer 1 changes predictions less than cutting random keys: relative excess −0.",
         f"difference between cutting {NEAR} and random keys, in any layer"),
        ("prompt_lost", {}, {"cost": 0.3}, {"cost": -0.3},
         f"Cutting {SUBJECT} costs most in layer 3: 0.29", f"Cutting {SUBJECT} adds most in layer 3: 0.3",
         "cost of cutting the last token from the subject, in the answer's log-probability"),
        ("difference", {}, {"first": 4, "second": 1}, {"first": 1, "second": 4},
         "The subject is needed 2.", "layers earlier for near than for far (95% CI ",
         "difference in the layer about which the subject is needed between near and far"),
        ("prompt_relative_excess", {}, {"times": 3}, {"times": 1 / 3},
         f"Cutting {SUBJECT} in layer 2 changes predictions more than cutting random keys: relative excess 0.",
         f"Cutting {SUBJECT} in layer 2 changes predictions less than cutting random keys: relative excess −0.",
         f"difference between cutting {SUBJECT} and random keys, in any layer"),
    ],
)  # fmt: skip
def test_each_direction_nothing_and_too_little(
    name: str, labels: dict[str, Any], one: dict[str, float], other: dict[str, float],
    says: str, opposite: str, nothing: str,
) -> None:  # fmt: skip
    said, turned, null = (_said(name, labels=labels, **how) for how in (one, other, {}))
    few = _said(name, labels=labels, n=2 if name.startswith(("prompt_", "diff")) else 4, **one)

    assert said.text.startswith(says)
    assert opposite in turned.text
    assert said.value is not None
    assert turned.value is not None
    assert said.value * turned.value < 0
    assert "(95% CI " in said.text
    compares(said, turned, null, few, nothing)


def test_the_best_of_many_cuts_has_an_interval_for_all_of_them() -> None:
    for name in ("lost", "relative_excess", "prompt_lost", "prompt_relative_excess"):
        assert "interval for all of them at once" in _said(name, cost=0.3).caveat


def test_the_index_is_said_with_every_way_to_place_removed_attention_and_with_random_keys() -> None:
    said = _said("far_less_near", near=1, far=4, keys=1)

    assert said.caveat.startswith("with attention sent to the first token 2.")
    assert "; with attention kept on mean values 2." in said.caveat
    assert "; random keys " in said.caveat


def test_random_keys_that_nowhere_hold_as_much_are_not_mentioned() -> None:
    kept = _passages(near=1, far=4)
    kept["control_divergence"] = kept.control_divergence * np.nan
    said = list(claims(_result(kept)))

    assert "random keys" not in said_of(said, "far_less_near").caveat
    assert "far_less_near_beyond_control" not in {one.select["variable"] for one in said}


def test_what_no_layer_sees_or_nothing_needs_has_no_estimate() -> None:
    unseen, idle = _passages(), _passages()
    unseen["divergence"] = unseen.divergence.where(unseen.edges != SETS[2])
    idle["divergence"] = idle.divergence * 0
    whole = f"No estimate of the difference in depth between needing {FAR} and {NEAR}"

    texts = [said_of(list(claims(_result(one))), "far_less_near").text for one in (unseen, idle)]

    assert texts == [
        f"{whole} (no layer can see {FAR}).",
        f"{whole} (cutting one of them changes no prediction).",
    ]


@pytest.mark.parametrize(("turned", "says", "ratio"), [(1.0, 1, "1"), (-1.0, 0, "1")])
def test_losses_that_depend_on_where_removed_attention_goes_are_counted(
    turned: float, says: int, ratio: str
) -> None:
    kept = _passages(cost=0.5)
    other = kept.fate != FATES[0]
    kept["loss"] = xr.where(other, turned * kept.loss, kept.loss)

    said = said_of(list(claims(_result(kept))), "agreement")

    assert said.text == (
        f"The loss is significant wherever the removed attention goes in {says} of 1 significant cells; the median "
        f"ratio of the smallest to the largest effect is {ratio}."
    )


def test_the_layer_about_which_each_category_needs_its_subject_is_said() -> None:
    result = _result(prompts=_prompts(first=4, second=1))
    near, far = (said_of(list(claims(result)), "subject_centroid", category=name) for name in ("near", "far"))

    assert near.text.startswith("The subject is needed about layer 4.0")
    assert far.text.startswith("The subject is needed about layer ")
    assert "(95% CI " in near.text


def test_a_subject_that_no_layer_sees_has_no_estimate() -> None:
    kept = _prompts()
    for name in ("divergence", "loss"):
        kept[f"prompt_{name}"] = kept[f"prompt_{name}"].where(kept.prompt_edges != "the subject")

    said = said_of(list(claims(_result(prompts=kept))), "prompt_lost")

    assert said.text == (
        "No estimate of the cost of cutting the last token from the subject, in the answer's log-probability "
        "(no layer lets the last token see the subject)."
    )


def test_its_measures_over_depth_are_of_far_context_and_of_the_subject() -> None:
    result = _result(_passages(near=1, far=4), _prompts())

    measures = experiments.load("attention_knockout").over_depth(result)

    assert list(measures) == ["needs_far", "needs_subject"]
    assert measures["needs_far"].draws.sizes == {"draw": 200, "layer": LAYERS}
    assert int(measures["needs_far"].value.argmax("layer")) == 4
    assert set(measures["needs_far"]) == {"value", "low", "high", "n", "null", "draws"}


def test_figures_name_distances_as_sentences_do() -> None:
    figures = draw(_result(_passages(near=1, far=4), _prompts()))

    assert list(figures["What does cutting each distance cost?"].layout.yaxis.ticktext) == [
        "1-3 tokens back", "4-47 tokens back", "≥ 48 tokens back", "≥ 4 tokens back", "first token",
    ]  # fmt: skip
    names = {trace.name for trace in figures["Effect of cutting each distance"].data}
    assert {"1-3 tokens back", "≥ 48 tokens back"} <= names


@pytest.mark.parametrize(("times", "sign"), [(3.0, 1), (1 / 3, -1)])
def test_the_excess_is_what_a_cut_does_beyond_random_keys(times: float, sign: int) -> None:
    result = _result(_passages(times=times)).sel(edges=SETS[0], layer=1).isel(window=0, fate=0)

    assert float(result.excess) == pytest.approx(float(result.effect - result.control_effect))
    assert np.sign(result.excess) == sign


def test_the_effect_per_attention_is_divided_by_what_was_cut() -> None:
    result = _result(_passages())

    np.testing.assert_allclose(result.effect_per_mass, result.effect / 0.2, rtol=1e-6)


def test_of_significant_costs_the_largest_is_named_whichever_way_it_goes() -> None:
    kept = _passages(cost=-0.5)
    loss = kept["loss"].copy(deep=True)
    loss[{"edges": 0, "layer": 2}] += 0.2

    said = said_of(list(claims(_result(passages=kept.assign(loss=loss)))), "lost")

    assert said.text.startswith(f"Cutting {FAR} adds most in layer 4: 0.5")


def test_units_without_random_keys_count_as_no_excess_where_most_have_some() -> None:
    excess = xr.DataArray(
        [[1.0, 1.0], [1.0, np.nan], [1.0, np.nan], [np.nan, np.nan]], dims=["unit", "layer"]
    )

    assert _with_nothing(excess, "unit").values[:, 0].tolist() == [1, 1, 1, 0]
    assert np.isnan(_with_nothing(excess, "unit").values[1:, 1]).all()


def test_attention_that_was_cut_and_that_of_random_keys_are_kept_apart() -> None:
    kept = _passages(times=3)
    mass = _profile(np.array([1, 2, 4, 4, 1]))
    kept["mass"] = kept.mass.copy(data=np.broadcast_to(mass[None, :, None], kept.mass.shape))
    kept["control_mass"] = 0.75 * kept.control_mass
    result = _result(kept)
    said = said_of(list(claims(result)), "relative_excess", edges=SETS[0])

    np.testing.assert_allclose(result.far_less_near_of_mass, 2.96, atol=0.01)
    assert "significantly more in layer 1, less in no layer; " in said.caveat
    assert "the cut holds 20% of attention there, the random keys 15%; " in said.caveat


def test_cuts_are_compared_with_random_keys_on_the_targets_that_have_them() -> None:
    kept = _passages()
    second = np.arange(kept.sizes["token"]) % 2 == 1
    kept["control_divergence"] = kept.control_divergence.where(xr.DataArray(~second, dims="token"))
    kept["divergence"] = xr.where(xr.DataArray(second, dims="token"), 9.0, kept.divergence)

    np.testing.assert_allclose(_result(kept).relative_excess.sel(edges=SETS[3]), 0, atol=0.01)
