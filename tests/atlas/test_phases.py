"""Phases where measures change together, none where they drift, and groups of questions weigh alike."""

import numpy as np
import pytest
import xarray as xr

from layerscope.atlas.phases import stretches

LAYERS = 12


def atlas(curves: np.ndarray, groups: list[str], noise: float = 0.05) -> xr.Dataset:
    rng = np.random.default_rng(0)
    draws = curves[:, None] + rng.normal(0, noise, (len(curves), 200, curves.shape[1]))
    return xr.Dataset(
        {
            "value": (("measure", "layer"), curves),
            "draws": (("measure", "draw", "layer"), draws),
            "n": (("measure", "layer"), np.full(curves.shape, 20.0)),
        },
        {"group": ("measure", groups)},
    )


def steps(at: int, height: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng([at, int(10 * abs(height))])
    return np.where(np.arange(LAYERS) < at, 0.0, height) + rng.normal(0, 0.05, LAYERS)


@pytest.mark.parametrize("at", [4, 7])
def test_a_change_of_all_measures_is_found_where_it_is(at: int) -> None:
    curves = np.stack([steps(at, height) for height in (1, -2, 5, 3, -4, 6)])

    found = stretches(atlas(curves, ["state", "context", "attention"] * 2))

    assert found.bounds == [(0, at - 1), (at, LAYERS - 1)]
    assert found.of(at) == f"Phase 2 of 2: layers {at} to 11."
    assert found.said().startswith(
        f"Layers fall into 2 phases, which begin at layer 0, layer {at} ({at} to {at})"
    )


def test_drift_has_no_phases_and_says_so() -> None:
    line = np.linspace(0, 1, LAYERS) + np.random.default_rng(2).normal(0, 0.01, (3, LAYERS))

    found = stretches(atlas(line, ["state", "context", "attention"], noise=0.01))

    assert found.bounds == []
    assert found.said() == "No phases: a smooth drift describes the measures as well."
    assert found.of(3) == ""


def test_a_change_that_resamples_do_not_bear_out_is_no_phase() -> None:
    found = stretches(atlas(np.stack([steps(5, 0.35)] * 2), ["state", "context"], noise=0.6))

    assert found.bounds == []


def test_a_group_of_many_measures_weighs_as_one_of_few() -> None:
    """Nine measures of state change at 1, one of each of three other groups at 3: of five layers one cut is tried."""
    early, late = np.array([0.0, 1, 1, 1, 1]), np.array([0.0, 0, 0, 1, 1])
    curves = np.stack([*[early] * 9, late, -late, 2 * late])
    groups = ["state"] * 9 + ["context", "attention", "weights"]

    weighed, alike = (stretches(atlas(curves, which)) for which in (groups, list("abcdefghijkl")))

    assert weighed.begins.value.tolist() == [3]
    assert alike.begins.value.tolist() == [1]


def test_too_few_layers_and_no_replicates_are_said() -> None:
    data = atlas(np.stack([steps(5)]), ["state"])

    assert "3 layers are too few" in stretches(data.isel(layer=slice(3))).said()
    assert "no measure that was resampled" in stretches(data.assign(draws=data.draws * np.nan)).said()
