# ruff: noqa: E501
"""What future_use says, from samples through its own conclusion: both ways, of nothing, of too little."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.future_use import Settings, claims, conclude, draw

DEPTHS, HORIZON, TARGETS = 9, 8, 3


def _effects(
    n: int = 8,
    *,
    turns: float = 5.0,
    near: float = 0.0,
    far: float = 0.0,
    control: float = 0.0,
    wobble: float = 0.1,
) -> xr.Dataset:
    """States whose effect moves from later predictions to their own at one depth, the same on 1-4 tokens and on others.

    Args:
        n: passages.
        turns: depth at which the effect on later predictions falls to half.
        near, far: by how many layers later that is on the next four tokens, and on those behind them.
        control: by how many layers later it is for a random change.
        wobble: how much passages differ, in layers.
    """
    rng, rows = np.random.default_rng(0), n * TARGETS
    own = wobble * rng.normal(size=(n, 1, 1)).repeat(TARGETS, axis=0)
    extra = wobble * rng.normal(size=(n, HORIZON, 1)).repeat(TARGETS, axis=0)
    depth = np.arange(DEPTHS)
    at = turns + np.where(np.arange(HORIZON) < 4, near, far)[:, None] + own + extra
    later = 1 / (1 + np.exp(2 * (depth - at))) / HORIZON
    both = []
    for moved in (0.0, control):
        of_later = 1 / (1 + np.exp(2 * (depth - at - moved))) / HORIZON if moved else later
        of_later = of_later * (depth < DEPTHS - 1)
        of_own = np.maximum(1.0 - of_later.sum(axis=1, keepdims=True), 0)
        both.append(np.concatenate([of_own, of_later], axis=1).transpose(0, 2, 1))
    divergence = np.stack(both, axis=1)[:, :, None]  # [token perturbation sample depth distance]
    dims = ("token", "perturbation", "sample", "depth", "distance")
    return xr.Dataset(
        {
            "divergence": (dims, divergence),
            "loss": (dims, divergence / 2),
            "left_out_because": ("passage", [""] * n),
        },
        coords={
            "token_passage": ("token", np.repeat([f"p{i}" for i in range(n)], TARGETS)),
            "token_unread": ("token", np.zeros(rows, dtype=int)),
            "passage": [f"p{i}" for i in range(n)],
            "perturbation": ["corruption", "control"],
            "depth": depth,
            "distance": np.arange(HORIZON + 1),
        },
    )


def _concluded(**how: Any) -> xr.Dataset:
    return conclude({"effects": _effects(**how)}, Settings(resamples=200))


def _said(variable: str, **how: Any) -> Claim:
    return next(claim for claim in claims(_concluded(**how)) if claim.select["variable"] == variable)


@pytest.mark.parametrize(
    ("variable", "one", "other", "says", "opposite", "nothing"),
    [
        ("far_less_near", {"far": 2.0}, {"near": 2.0},
         "Predictions 5 to 8 tokens on have taken half of what they take from a state 1.96 layers later than", " layers earlier than those 1 to 4 tokens on",
         "difference between predictions 5 to 8 tokens on and 1 to 4 tokens on in the depth at which they have taken half"),
        ("share_less_control", {"control": -2.0}, {"control": 2.0}, "percentage points higher than for a random change of the same",
         "percentage points lower than for a random change of the same length",
         "difference in the future share from a random change of the same length, at any depth"),
    ],
)  # fmt: skip
def test_each_direction_nothing_and_too_little(
    variable: str, one: dict[str, Any], other: dict[str, Any], says: str, opposite: str, nothing: str
) -> None:
    said, turned, null, few = (_said(variable, **how) for how in (one, other, {}, one | {"n": 4}))

    assert says in said.text
    assert opposite in turned.text
    assert "(95% CI " in said.text
    assert (said.significant, turned.significant, null.significant, few.significant) == (
        True,
        True,
        False,
        False,
    )
    assert said.value is not None
    assert turned.value is not None
    assert said.value > 0 > turned.value
    assert null.text.startswith(f"No detectable {nothing}")
    assert few.text.startswith(f"Too few passages to test the {nothing}")


def test_the_crossing_is_said_with_the_number_that_it_is_at_zero_too() -> None:
    later, never, nothing = _said("crossing"), _said("crossing", turns=-9.0, wobble=0.0), _effects()
    nothing["divergence"] = nothing.divergence * 0
    unknown = next(iter(claims(conclude({"effects": nothing}, Settings(resamples=50)))))

    assert later.text.startswith("From depth 5.0")
    assert (
        " of 8 on, replacing a state by another text's costs the token's own prediction more than the next 8 predictions together (95% CI 4."
        in later.text
    )
    assert later.value == pytest.approx(5.0, abs=0.2)
    assert never.text.startswith("From depth 0 of 8 on, replacing")
    assert (never.value, never.low, never.high) == (0.0, 0.0, 0.0)
    assert unknown.text.startswith(
        "No estimate of the depth from which states serve their own prediction most (replacing"
    )


def test_shares_and_depths_of_readers_are_said_with_their_intervals() -> None:
    half, very_next = _said("half_gone"), _said("on_the_next_token")

    assert half.text.startswith("By depth 5.")
    assert "predictions 1 to 8 tokens on have taken half of what they take from a state (95% CI " in half.text
    assert very_next.text.startswith("12.5")
    assert (
        "of what the next 8 predictions lose when a state is replaced at depth 0 falls on the very next one"
        in very_next.text
    )
    assert "spread evenly it would be 12.5" in very_next.caveat


def test_the_crossing_counts_later_predictions_up_to_each_horizon() -> None:
    result = _concluded()
    by_horizon = result.crossing_by_horizon

    assert float(by_horizon.sel(horizon=HORIZON)) == pytest.approx(float(result.crossing))
    assert float(by_horizon.sel(horizon=1)) < float(result.crossing)


def test_figures_are_drawn_and_the_measure_has_replicates() -> None:
    result = _concluded(control=1.0)
    one = experiments.load("future_use").over_depth(result)["future_share"]

    assert all(figure.data for figure in draw(result).values())
    assert one.draws.sizes == {"draw": 200, "depth": DEPTHS}
    np.testing.assert_allclose(one.value, result.future_share.sel(perturbation="corruption"))
    np.testing.assert_allclose(one["null"], result.future_share.sel(perturbation="control"))
