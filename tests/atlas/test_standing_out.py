"""A layer stands out where it was made to, and nowhere else; what would hide it or feign it does not."""

import numpy as np
import pytest
import xarray as xr

from layerscope.atlas.standing_out import standing_out

LAYERS = 8


def atlas(
    value: np.ndarray,
    *,
    noise: float = 0.02,
    null: float = 0.0,
    twins: np.ndarray | None = None,
    units: int = 20,
) -> xr.Dataset:
    """An atlas of one or more measures [measure layer], with replicates round their values."""
    rows = np.atleast_2d(value)
    rng = np.random.default_rng(0)
    draws = rows[:, None] + rng.normal(0, noise, (len(rows), 200, rows.shape[1]))
    data = xr.Dataset(
        {
            "value": (("measure", "layer"), rows),
            "null": (("measure", "layer"), np.full(rows.shape, null)),
            "n": (("measure", "layer"), np.full(rows.shape, float(units))),
            "draws": (("measure", "draw", "layer"), draws),
        }
    )
    return data if twins is None else data.assign(untrained=(("measure", "twin", "layer"), twins[None]))


def peak(at: int, height: float = 1.0) -> np.ndarray:
    curve = 0.1 + np.random.default_rng(3).normal(0, 0.03, LAYERS)
    curve[at] += height
    return curve


def layers_of(data: xr.Dataset) -> list[int]:
    return np.flatnonzero(standing_out(data).stands_out.values[0]).tolist()


@pytest.mark.parametrize("at", [0, 5, LAYERS - 1])
def test_a_layer_unlike_the_others_stands_out_wherever_it_is(at: int) -> None:
    assert layers_of(atlas(peak(at))) == [at]
    assert layers_of(atlas(1 - peak(at), null=2.0)) == [at], "a low one too"


def test_layers_alike_and_a_smooth_slope_have_none() -> None:
    alike = 0.5 + np.random.default_rng(5).normal(0, 0.02, LAYERS)

    assert layers_of(atlas(alike)) == [], "apart by no more than texts vary"
    assert layers_of(atlas(np.linspace(0, 1, LAYERS))) == []


def test_a_difference_that_texts_make_does_not_count() -> None:
    assert layers_of(atlas(peak(3), noise=0.5)) == []
    assert layers_of(atlas(peak(3), units=5)) == [], "five texts say nothing"


def test_nor_does_a_layer_at_the_null_itself() -> None:
    low = 1 - peak(3)

    assert layers_of(atlas(low, null=float(low[3]))) == []


def test_what_twins_show_in_that_layer_too_is_not_the_training_s() -> None:
    rng = np.random.default_rng(4)
    like = peak(3) + rng.normal(0, 0.05, (6, LAYERS))
    unlike = 0.1 + rng.normal(0, 0.05, (6, LAYERS))

    assert layers_of(atlas(peak(3), twins=like)) == []
    assert layers_of(atlas(peak(3), twins=unlike)) == [3]
    assert layers_of(atlas(peak(3), twins=like[:4])) == [3], "four twins are shown and decide nothing"


def test_a_measure_without_twins_beside_one_with_them_is_judged_by_its_null() -> None:
    both = atlas(np.stack([peak(3), peak(5)]))
    twins = np.stack(
        [0.1 + np.random.default_rng(4).normal(0, 0.05, (6, LAYERS)), np.full((6, LAYERS), np.nan)]
    )

    found = standing_out(both.assign(untrained=(("measure", "twin", "layer"), twins)))

    assert [np.flatnonzero(row).tolist() for row in found.stands_out.values] == [[3], [5]]
    assert np.isnan(found.untrained_mean.values[1]).all()


def test_without_a_null_and_without_twins_nothing_is_said() -> None:
    data = atlas(peak(3), null=np.nan)

    assert layers_of(data) == []
    assert np.isnan(standing_out(data).p_adjusted.values).all()


def test_many_measures_are_corrected_for() -> None:
    """Layers that are alike but for the texts' noise: of forty reports of forty measures, few say anything."""
    said = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        seen = 0.5 + rng.normal(0, 0.02, (40, LAYERS))
        data = atlas(seen)
        data["draws"] = (data.draws.dims, seen[:, None] + rng.normal(0, 0.02, data.draws.shape))
        said += bool(standing_out(data).stands_out.any())
    assert said <= 4, "at level .05, more than 4 of 40 are seen in five of a hundred trials"


def test_ranks_count_from_the_largest() -> None:
    found = standing_out(atlas(np.array([3.0, 1.0, 2.0, np.nan])))

    np.testing.assert_equal(found["rank"].values[0], [1, 3, 2, np.nan])
