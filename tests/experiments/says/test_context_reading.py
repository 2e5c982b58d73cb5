"""What context_reading says, from samples through its own conclusion: both ways, of nothing, of too little."""

import numpy as np
import xarray as xr

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.experiments.context_reading import Settings, claims, conclude
from layerscope.experiments.context_reading.measure import PARTS

LAYERS, RANGES = 6, ["1 to 3 back", "4 to 47 back", "48 back and more"]


def _reading(near: int, far: int, passages: int = 8, *, attention: float = 1.0) -> xr.Dataset:
    """Near context read in one layer, far context in another, give or take; three targets a passage."""
    rng, n = np.random.default_rng(0), 3 * passages
    at = np.stack([np.full(n, near), np.full(n, (near + far) / 2), np.full(n, far)], axis=1)
    at = at + rng.normal(scale=0.3, size=(passages, 3)).repeat(3, axis=0)
    heights = np.exp(-((np.arange(LAYERS) - at[..., None]) ** 2))
    parts = np.array([0.5, 0.3, -0.1, 0.3])[:, None] * np.full(LAYERS, 1 / LAYERS)
    dims = ("token", "cut_at", "part", "layer")
    variables = {
        "fresh_by_range": (("token", "range", "layer"), attention * heights),
        "attention": (("token", "layer"), np.full((n, LAYERS), attention)),
        "part_length": (dims, np.broadcast_to(np.abs(parts), (n, 1, 4, LAYERS))),
        "projection": (dims, np.broadcast_to(parts, (n, 1, 4, LAYERS))),
        "difference": (("token", "cut_at", "layer"), np.ones((n, 1, LAYERS))),
        "gap": (("token", "cut_at", "layer"), np.zeros((n, 1, LAYERS))),
    }
    names = np.repeat([f"p{i}" for i in range(passages)], 3)
    return xr.Dataset(
        variables,
        coords={
            "token_passage": ("token", names),
            "token_unread": ("token", np.zeros(n, dtype=int)),
            "range": RANGES,
            "cut_at": [48],
            "part": list(PARTS),
            "layer": range(LAYERS),
        },
    )


def _said(**how: int | float) -> list[Claim]:
    return list(claims(conclude({"reading": _reading(**how)}, Settings(resamples=200))))  # type: ignore[arg-type]


def test_far_context_that_is_read_later_or_earlier_is_said_so() -> None:
    later, earlier = _said(near=1, far=4)[0], _said(near=4, far=1)[0]

    assert later.text.startswith("Context ≥ 48 tokens back is read directly 2.")
    assert "layers later than context 1-3 tokens back (95% CI " in later.text
    assert later.text.endswith("p < 0.01).")
    assert "layers earlier than context 1-3 tokens back" in earlier.text
    assert later.significant
    assert earlier.significant
    assert later.value is not None
    assert earlier.value is not None
    assert later.value > 0 > earlier.value


def test_nothing_and_too_little_are_said_as_such() -> None:
    nothing, few = _said(near=2, far=2)[0], _said(near=1, far=4, passages=4)[0]

    assert nothing.text.startswith(
        "No detectable difference in depth between reading context ≥ 48 tokens back and "
    )
    assert nothing.significant is False
    assert few.text.startswith("Too few passages to test the difference in depth between reading")
    assert "(4 passages; smallest possible p = 0.12; estimate " in few.text


def test_ranges_that_are_nowhere_read_have_no_estimate() -> None:
    assert _said(near=1, far=4, attention=0.0)[0].text == (
        "No estimate of the difference in depth between reading context ≥ 48 tokens back and context 1-3 tokens back "
        "(attention adds nothing from one of these ranges)."
    )


def test_the_parts_are_said_with_the_part_that_is_read_directly_first() -> None:
    brought = _said(near=1, far=4)[1]

    assert brought.text.startswith(
        "50% of what context ≥ 48 tokens back changes in the final state is read directly"
    )
    assert (
        "relayed by other tokens 30%, amplified by its own attention −10%, changed by MLPs 30%"
        in brought.caveat
    )
    assert brought.significant is None


def test_its_measures_over_depth_have_replicates_of_the_whole_curve() -> None:
    result = conclude({"reading": _reading(near=1, far=4)}, Settings(resamples=300))

    measures = experiments.load("context_reading").over_depth(result)

    assert list(measures) == ["read_directly_far", "read_directly_near"]
    far = measures["read_directly_far"]
    assert far.draws.sizes == {"draw": 200, "layer": LAYERS}
    np.testing.assert_allclose(far.draws.mean("draw"), far.value, atol=0.05)
    assert int(far.value.values.argmax()) == 4
