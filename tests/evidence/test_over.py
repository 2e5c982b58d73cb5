"""Over: units, intervals that hold their values, the best of many, tests that know when they could not succeed."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

from layerscope.evidence import Intervals, Over, Resampled, finding, holm_over, named, strongest
from layerscope.maths.bootstrap import bootstrap_mean

RNG = np.random.default_rng(0)
PASSAGES = ["a"] * 2 + ["b"] * 3 + ["c"]
TOKENS = xr.Dataset(coords={"token_passage": ("token", PASSAGES), "layer": ("layer", [0, 1])})
SETTINGS = Intervals(resamples=400)


def _prompts(n: int) -> xr.Dataset:
    return xr.Dataset(coords={"prompt": ("prompt", [f"p{i}" for i in range(n)])})


def _named(values: np.ndarray, *dims: str) -> xr.DataArray:
    coords = {dim: np.arange(size) for dim, size in zip(dims, values.shape, strict=True) if dim != "prompt"}
    return named(xr.DataArray(values, dims=dims, coords=coords), "gain", "gain over nothing", "layer")


def test_rows_are_averaged_within_units_and_what_is_missing_does_not_count() -> None:
    values = np.array([[1.0, 10], [3, np.nan], [2, 4], [4, 8], [6, 12], [7, np.nan]])
    over = Over(TOKENS, SETTINGS, rows="token_passage")

    units = over.units(named(values, "norm", "norm", dims=("token", "layer")))

    assert over.unit == "passage"
    assert over.names == ["a", "b", "c"]
    assert units.dims == ("passage", "layer")
    np.testing.assert_array_equal(units, [[2, 10], [4, 8], [7, np.nan]])


def test_a_mean_is_that_of_the_bootstrap_with_its_names_and_units() -> None:
    values = _named(RNG.normal(size=(9, 3)), "prompt", "layer")

    found = Over(_prompts(9), SETTINGS, rows="prompt").mean(values, draws=True)

    expected = bootstrap_mean(values.values, seed=0, resamples=400)
    np.testing.assert_array_equal(found.gain, expected.value)
    np.testing.assert_array_equal(found.gain_low, expected.low)
    assert found.gain.attrs == {"long_name": "gain over nothing", "units": "layer", "over": "prompt"}
    assert found.gain_n.values.tolist() == [9, 9, 9]
    assert found.gain_draws.dims == ("draw", "layer")
    assert found.sizes["draw"] == 200
    np.testing.assert_allclose(found.gain_draws.mean("draw"), found.gain, atol=0.2)


def test_an_interval_holds_its_value_however_skewed_the_draws_are() -> None:
    over = Over(_prompts(20), SETTINGS, rows="prompt")
    value = named(xr.DataArray([3.0, 0.1, np.nan], dims="layer"), "place", "place")
    draws = xr.DataArray(
        np.stack([np.full(400, 2.0), RNG.normal(size=400), np.zeros(400)], 1), dims=("draw", "layer")
    )

    found = over.quantity(Resampled(value, draws, xr.DataArray([20, 20, 20], dims="layer")))

    assert (found.place_low <= found.place)[:2].all()
    assert (found.place <= found.place_high)[:2].all()
    assert float(found.place_high[0]) == 3.0


def test_the_ends_for_all_at_once_are_wider_and_hold_the_best_of_many() -> None:
    held, alone = 0, 0
    for seed in range(60):
        values = _named(np.random.default_rng(seed).normal(size=(20, 13)), "prompt", "layer")
        found = Over(_prompts(20), Intervals(seed=seed, resamples=300), rows="prompt").mean(
            values, together="layer"
        )
        best = int(found.gain.values.argmax())
        held += float(found.gain_joint_low[best]) <= 0
        alone += float(found.gain_low[best]) <= 0
        assert (found.gain_joint_low <= found.gain_low).all()

    assert held >= 55  # the best of 13 that are all 0: 95 % of 60 is 57
    assert alone < held  # its own interval promises more than it keeps


def test_differences_of_medians_are_taken_draw_by_draw() -> None:
    over = Over(TOKENS, SETTINGS, rows="token_passage")
    first = named(RNG.normal(size=(6, 2)), "middle", "median", dims=("token", "layer"))

    both = over.medians(first) - over.medians(named(first + 1.0, "middle", "median"))
    found = over.quantity(Resampled(named(both.value, "middle", "median"), both.draws, both.n))

    np.testing.assert_allclose(found.middle, -1)
    np.testing.assert_allclose(found.middle_low, -1)  # the same passages are drawn for both


def test_means_and_medians_draw_the_same_passages_in_whatever_order_they_come() -> None:
    tokens = xr.Dataset(coords={"token_passage": ("token", ["b", "a", "c"])})
    over = Over(tokens, SETTINGS, rows="token_passage")
    one = named([1.0, 2.0, 100.0], "one", "one token a passage", dims=("token",))

    means, medians = over.means(one), over.medians(one)

    thrice = means.draws.isin([1.0, 2.0, 100.0]).values  # one passage drawn three times
    assert thrice.sum() > 10
    np.testing.assert_allclose(means.draws[thrice], medians.draws[thrice])


@pytest.mark.parametrize(("n", "least"), [(4, 2 / 16), (8, 2 / 256)])
def test_paired_differences_say_the_smallest_p_that_was_possible(n: int, least: float) -> None:
    over = Over(_prompts(n), SETTINGS, rows="prompt")

    one = over.paired(_named(np.full(n, 2.0) + 0.1 * np.arange(n), "prompt"))
    several = over.paired(_named(2.0 + RNG.normal(scale=0.1, size=(n, 3)), "prompt", "layer"))

    assert float(one.gain_p_adjusted) == float(one.gain_least_p) == pytest.approx(least)
    np.testing.assert_allclose(several.gain_least_p, least)
    np.testing.assert_allclose(several.gain_p_adjusted, least)


def test_holm_makes_one_family_of_several_tests() -> None:
    over = Over(_prompts(8), SETTINGS, rows="prompt")
    tests = [
        over.paired(_named(np.arange(8.0) + shift, "prompt").rename(name))
        for name, shift in (("a", 1), ("b", 2))
    ]

    found = holm_over(xr.merge(tests), "a", "b")

    assert float(found.a_p_adjusted) == pytest.approx(2 * 2 / 256)
    assert float(found.a_least_p) == pytest.approx(2 * 2 / 256)


def test_contrasts_know_both_groups_and_what_was_possible() -> None:
    groups = ["far"] * 4 + ["near"] * 2 + ["odd"]
    over = Over(_prompts(7), SETTINGS, rows="prompt")

    found = over.contrasts(_named(np.array([5.0, 6, 7, 8, 1, 2, 3]), "prompt"), groups).set_index(
        contrast="contrast"
    )

    one = finding(
        found,
        "difference",
        p="p_adjusted",
        n=("difference_n_first", "difference_n_second"),
        contrast="far − near",
    )
    assert one.n == (4, 2)
    assert one.least_alone == pytest.approx(1 / 15)
    assert not one.testable
    said = one.claim("far is later", nothing="difference in place between far and near").text
    assert said.startswith(
        "Too few prompts to test the difference in place between far and near (4 against 2; "
    )
    assert "smallest possible p = 0.067" in said
    assert "estimate 5" in said


def test_scores_above_nothing_are_tested_over_their_family() -> None:
    over = Over(_prompts(12), SETTINGS, rows="prompt")
    values = _named(np.stack([RNG.normal(size=12), 5 + RNG.normal(size=12)], 1), "prompt", "depth")

    found = over.quantity(over.means(values), together="depth", above=0.0)
    best = strongest(found, "gain", over="depth")

    assert best.select == {"variable": "gain", "depth": 1}
    assert best.joint
    assert best.family == 2
    assert best.also == (1,)
    assert float(found.gain_p_adjusted[0]) > 0.05 > float(found.gain_p_adjusted[1])
    for low, high in pairwise((found.gain_joint_low, found.gain_low)):
        assert (low <= high).all()


def test_a_ratio_of_sums_weighs_units_by_what_they_hold_and_its_draws_are_of_the_same_ratio() -> None:
    rng = np.random.default_rng(0)
    below = rng.uniform(1, 20, size=(30, 3, 2))
    above = below * np.array([0.2, 0.4]) * (1 + 0.1 * rng.normal(size=(30, 3, 1)))
    above[:, 0, 1], below[:, 0, 1] = np.nan, np.nan  # a head that is not there
    dims = ("passage", "layer", "head")
    samples = xr.Dataset({"above": (dims, above), "below": (dims, below)}, coords={"passage": range(30)})
    over = Over(samples, Intervals(resamples=500), rows="passage")

    found = over.ratio(
        named(samples.above, "share", "share"), samples.below, mean_over="head", together="layer", draws=True
    )

    whole = np.nansum(above, axis=0) / np.where(np.isnan(below[0]), np.nan, below.sum(axis=0))
    np.testing.assert_allclose(found.share, np.nanmean(whole, axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.share_draws.mean("draw"), found.share, rtol=0.02)
    assert (found.share_joint_low <= found.share_low).all()
    assert (found.share_joint_high >= found.share_high).all()
    assert (found.share_joint_high < 1.1 * found.share).all()
    assert found.share_n.values.tolist() == [30, 30, 30]
