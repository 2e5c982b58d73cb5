"""Categories and matched prompts of causal_trace against each other: signs, and p that count every comparison."""

import numpy as np
import pytest
import xarray as xr

from layerscope.experiments.causal_trace import Settings
from layerscope.experiments.causal_trace.conclude.categories import contrasts_over_depth, matched_pairs
from layerscope.maths.permutation import least_p_of_signs, least_p_of_splits

DEPTHS, EACH, SETTINGS = 5, 6, Settings(resamples=100)


def _prompts(layers: dict[str, np.ndarray], pairs: list[str]) -> xr.Dataset:
    """Prompts by category, with the depth at which each crosses over: recovery at the last token is a step there."""
    at = np.concatenate(list(layers.values()))
    last = 1.0 * (np.arange(DEPTHS) >= at[:, None])
    return xr.Dataset(
        {
            "left_out_because": ("prompt", np.full(len(at), "")),
            "transition_layer": ("prompt", at),
            "prompt_recovery": (("prompt", "row", "depth"), last[:, None]),
        },
        coords={
            "prompt": [f"p{i}" for i in range(len(at))],
            "prompt_category": ("prompt", [name for name, own in layers.items() for _ in own]),
            "prompt_pair": ("prompt", pairs),
            "row": ["last token"],
        },
    )


def test_matched_prompts_are_compared_first_less_second_and_p_counts_every_comparison() -> None:
    wobble = np.tile([0.1, -0.1], EACH // 2)
    result = _prompts(
        {"b": np.full(EACH, 2.0), "a": 3 + wobble, "c": 2 + wobble, "d": np.full(EACH, 2.5)},
        [f"ab{i}" for i in range(EACH)] * 2 + [f"cd{i}" for i in range(EACH)] * 2,
    )

    found = matched_pairs(result, SETTINGS)

    assert found.matched.values.tolist() == ["a − b", "c − d"]
    np.testing.assert_allclose(found.paired_difference, [1, -0.5])
    np.testing.assert_allclose(found.paired_difference_least_p, 2 * least_p_of_signs(EACH))
    np.testing.assert_allclose(found.paired_p, 2 * least_p_of_signs(EACH))


@pytest.mark.parametrize(("early", "late", "sign"), [(1.0, 4.0, 1), (4.0, 1.0, -1)])
def test_categories_differ_over_depth_in_recovery_and_p_counts_every_pair(
    early: float, late: float, sign: int
) -> None:
    layers = {"a": np.full(EACH, early), "b": np.full(EACH, late), "c": np.full(EACH, 2.0)}
    found = contrasts_over_depth(_prompts(layers, [""] * 3 * EACH), SETTINGS)
    least = 3 * least_p_of_splits(EACH, EACH)

    assert found.category_pair.values.tolist() == ["a − b", "a − c", "b − c"]
    np.testing.assert_array_equal(found.depth_difference[0], sign * np.array([0, 1, 1, 1, 0]))
    np.testing.assert_allclose(found.depth_difference_least_p, least)
    assert float(found.depth_p[0].min()) > 0.6 * least
