import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscope.maths import bootstrap
from layerscope.maths.bootstrap import (
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_statistic,
    interval_of_draws,
)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).exponential(size=shape)


def assert_same(one, other, **tolerance):
    for name in ("value", "low", "high", "n"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), **tolerance)


def expanded(n, level=0.95):
    """The level of the plain percentile interval that ours is, by Hesterberg's formula."""
    t = scipy.stats.t.ppf((1 + level) / 2, n - 1)
    return 1 - 2 * scipy.stats.norm.cdf(-t * np.sqrt(n / (n - 1)))


def test_agrees_with_scipy_within_monte_carlo_error():
    values = draw(20)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=expanded(20), n_resamples=40_000, method="percentile", rng=1
    )

    found = bootstrap_mean(values, seed=0, resamples=40_000)

    # A tail quantile of 40,000 draws has a standard error of about 2 % of the standard error.
    off = 0.08 * expected.standard_error
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=off)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=off)
    assert expected.confidence_interval.high - values.mean() > values.mean() - found.low + off  # skewed


@pytest.mark.parametrize("n", [4, 9, 40])
def test_draws_that_understate_a_normal_mean_give_students_interval(n):
    # Resampled means have the variance s² (n − 1) / n² where the mean's own is estimated by s² / n.
    shares = (np.arange(200_000) + 0.5) / 200_000
    draws = scipy.stats.norm.ppf(shares) * np.sqrt((n - 1) / n)

    found = interval_of_draws(np.array(0.0), draws, units=n)

    t = scipy.stats.t.ppf(0.975, n - 1)
    np.testing.assert_allclose([found.low, found.high], [-t, t], rtol=0.01)


def test_a_difference_agrees_with_scipy_within_monte_carlo_error():
    # For two groups of one size and spread Welch's degrees of freedom are 2 (n − 1).
    a, b = draw(4), 3 - draw(4)[::-1]
    t = scipy.stats.t.ppf(0.975, 6)
    expected = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        confidence_level=1 - 2 * scipy.stats.norm.cdf(-t * np.sqrt(4 / 3)),
        n_resamples=200_000,
        method="percentile",
        rng=1,
    )

    found = bootstrap_difference(a, b, seed=0, resamples=200_000)

    off = 0.05 * expected.standard_error
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=off)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=off)


def test_an_uneven_difference_has_welchs_width():
    a, b = np.random.default_rng(0).normal(size=12), 5 * np.random.default_rng(1).normal(size=30)
    welch = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)

    found = bootstrap_difference(a, b, seed=0, level=0.9, resamples=40_000)

    assert found.high - found.low == pytest.approx(welch.high - welch.low, rel=0.04)


def test_the_tail_of_a_difference_follows_welchs_degrees_of_freedom():
    a, b = draw(3), 5 * draw(9, seed=1)
    variances = [a.var() / 2, b.var() / 8]  # unbiased, of the means
    resampled = [a.var() / 3, b.var() / 9]
    t = scipy.stats.t.ppf(0.975, scipy.stats.ttest_ind(a, b, equal_var=False).df)

    tail = bootstrap._tails_of_means([a[:, None], b[:, None]], 0.95)

    assert tail == pytest.approx(scipy.stats.norm.cdf(-t * np.sqrt(sum(variances) / sum(resampled))))


def test_a_level_is_a_width():
    wide, narrow = (bootstrap_mean(draw(30), seed=0, level=level) for level in (0.99, 0.5))
    half = scipy.stats.t.ppf(0.75, 29) * draw(30).std(ddof=1) / np.sqrt(30)

    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert narrow.high - narrow.low == pytest.approx(2 * half, rel=0.1)


@pytest.mark.parametrize(("name", "mean"), [("normal", 0), ("exponential", 1)])
def test_intervals_of_twenty_units_hold_the_truth_nine_times_in_ten(name, mean):
    samples = getattr(np.random.default_rng(5), name)(size=(10, 20, 60))
    found = [bootstrap_mean(sample, seed=i, resamples=999) for i, sample in enumerate(samples)]

    held = np.mean([(one.low <= mean) & (mean <= one.high) for one in found])

    assert 0.9 <= held <= 0.98


def test_differences_of_equal_groups_hold_zero_nine_times_in_ten():
    a, b = np.random.default_rng(6).exponential(size=(2, 10, 20, 60))
    found = [bootstrap_difference(x, y[:12], seed=i, resamples=999) for i, (x, y) in enumerate(zip(a, b))]  # noqa: B905

    assert 0.9 <= np.mean([(one.low <= 0) & (one.high >= 0) for one in found]) <= 0.98


def test_every_cell_sees_the_same_draws_of_whole_units():
    # A curve that each unit only scales: its resampled means, hence its interval, scale with it.
    scales = draw(12)
    curve = np.array([1.0, 2.0, -3.0])

    found = bootstrap_mean(scales[:, None] * curve, seed=0)

    alone = bootstrap_mean(scales, seed=0)
    np.testing.assert_allclose(found.low, [alone.low, 2 * alone.low, -3 * alone.high])
    np.testing.assert_allclose(found.high, [alone.high, 2 * alone.high, -3 * alone.low])


def test_groups_of_a_difference_are_resampled_independently():
    values = draw(20)

    found = bootstrap_difference(values, values, seed=0)

    assert found.value == 0
    assert found.high - found.low > values.std() / np.sqrt(20)


def test_chunks_change_nothing(monkeypatch):
    values = draw(9, 7, 5)
    values[0, 0] = np.nan
    whole = bootstrap_mean(values, seed=3, resamples=100)

    monkeypatch.setattr(bootstrap, "_AT_ONCE", 250)  # two cells, and 27 resamples, at a time

    assert_same(bootstrap_mean(values, seed=3, resamples=100), whole, rtol=1e-12)


def test_the_seed_decides():
    values = draw(10, 3)

    assert_same(bootstrap_mean(values, seed=1), bootstrap_mean(values, seed=1), rtol=0)
    assert (bootstrap_mean(values, seed=1).low != bootstrap_mean(values, seed=2).low).all()


def test_torch_and_numpy_give_the_same():
    a, b = draw(8, 3), draw(6, 3, seed=1)

    assert_same(bootstrap_mean(torch.tensor(a), seed=0), bootstrap_mean(a, seed=0))
    assert_same(
        bootstrap_difference(torch.tensor(a), torch.tensor(b), seed=0), bootstrap_difference(a, b, seed=0)
    )


def test_missing_values_are_left_out_of_their_cell_alone():
    values = draw(10, 3)
    values[:4, 1] = np.nan
    values[:9, 2] = np.nan

    found = bootstrap_mean(values, seed=0, resamples=20_000)

    np.testing.assert_array_equal(found.n, [10, 6, 1])
    np.testing.assert_allclose(found.value, [values[:, 0].mean(), values[4:, 1].mean(), values[9, 2]])
    np.testing.assert_array_equal(np.isnan(found.low), [False, False, True])
    np.testing.assert_array_equal(np.isnan(found.high), [False, False, True])
    whole = bootstrap_mean(values[4:, 1], seed=0, resamples=20_000)
    assert found.high[1] - found.low[1] == pytest.approx(whole.high - whole.low, rel=0.15)


def test_resamples_that_miss_every_value_of_a_cell_are_left_out():
    # Two values among twelve units: a ninth of the resamples draws neither.
    found = bootstrap_mean(np.array([1.0, 3] + [np.nan] * 10), seed=0)

    assert (found.value, found.low, found.high, found.n) == (2, 1, 3, 2)


def test_a_difference_counts_the_smaller_group():
    assert bootstrap_difference(draw(5), draw(9), seed=0).n == 5


def test_too_few_units_give_no_interval():
    nothing, one = bootstrap_mean(np.zeros((0, 2)), seed=0), bootstrap_mean(np.array([3.0]), seed=0)

    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    np.testing.assert_array_equal(nothing.n, [0, 0])
    assert (one.value, one.n) == (3, 1)
    assert np.isnan([one.low, one.high]).all()
    assert np.isnan(bootstrap_difference(draw(5), np.array([1.0]), seed=0).low)


def test_units_that_agree_give_an_interval_without_width():
    found = bootstrap_mean(np.full(5, 0.1), seed=0)

    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert bootstrap_mean(np.ones(5), seed=0).high == 1


@settings(max_examples=30)
@given(st.integers(2, 12), st.floats(0.1, 10), st.floats(-10, 10))
def test_intervals_follow_unit_and_zero_and_stay_within_the_data(n, unit, zero):
    values = draw(n, seed=n)
    here = bootstrap_mean(values, seed=0, resamples=200)
    there = bootstrap_mean(unit * values + zero, seed=0, resamples=200)

    assert there.low == pytest.approx(unit * here.low + zero, abs=1e-6)
    assert there.high == pytest.approx(unit * here.high + zero, abs=1e-6)
    assert values.min() - 1e-9 <= here.low <= here.value <= here.high <= values.max() + 1e-9


def test_the_general_form_of_a_mean_is_the_mean():
    values = draw(20, 2)

    found = bootstrap_statistic(values, lambda rows: rows.mean(axis=0), seed=0, resamples=10_000)

    assert_same(found, bootstrap_mean(values, seed=1, resamples=10_000), atol=0.03)


def test_a_median_agrees_with_scipy():
    values = draw(25)
    expected = scipy.stats.bootstrap(
        (values,), np.median, confidence_level=expanded(25), n_resamples=5000, method="percentile", rng=1
    ).confidence_interval

    found = bootstrap_statistic(torch.tensor(values), np.median, seed=0, resamples=5000)

    assert found.value == np.median(values)
    assert (found.low, found.high) == (
        pytest.approx(expected.low, abs=0.06),
        pytest.approx(expected.high, abs=0.06),
    )
    assert found.n == 25


def test_a_statistic_that_is_often_missing_has_no_interval():
    values = np.arange(10.0)

    def mostly_known(rows):
        return np.nan if (rows < 9).all() else rows.mean()  # 9 is left out of 35 % of resamples

    def always_known(rows):
        return rows.mean() if len(rows) else np.nan

    assert np.isnan(bootstrap_statistic(values, mostly_known, seed=0, resamples=300).low)
    assert bootstrap_statistic(values, mostly_known, seed=0, resamples=300, level=0.5).low > 3
    assert bootstrap_statistic(values, always_known, seed=0, resamples=300).low > 1
    assert np.isnan(bootstrap_statistic(values[:1], always_known, seed=0).high)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_outside_zero_to_one_is_refused(level):
    with pytest.raises(ValueError, match="level"):
        bootstrap_mean(draw(5), seed=0, level=level)


def test_no_resamples_are_refused():
    with pytest.raises(ValueError, match="resample"):
        bootstrap_statistic(draw(5), np.mean, seed=0, resamples=0)
