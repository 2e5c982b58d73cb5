from itertools import permutations

import numpy as np
import pytest
from scipy import stats
from scipy.special import xlogy

from layerscope.maths.trend import (
    goes_with,
    rate_difference_interval,
    rate_difference_p,
    rate_error,
    rate_trend,
)


def test_a_straight_line_leaves_nothing() -> None:
    trend = rate_trend(np.array([10, 20, 30, 40, 50]), np.full(5, 100))

    assert trend.slope == pytest.approx(0.4)
    assert trend.structure == pytest.approx(0, abs=1e-12)
    assert trend.structure_p == pytest.approx(1)
    assert trend.p < 1e-6
    assert trend.low < 0.4 < trend.high
    assert trend.freedom == 3


def test_the_interval_of_a_slope_ends_at_0_at_the_level_that_its_p_names() -> None:
    hits, n = np.array([30, 35, 38, 52, 45]), np.full(5, 100)

    found = rate_trend(hits, n)
    at_p = rate_trend(hits, n, level=1 - found.p)

    assert found.slope > 0
    assert at_p.low == pytest.approx(0, abs=1e-12)
    assert at_p.high == pytest.approx(2 * found.slope)
    assert found.high - found.low == pytest.approx(
        2 * 1.959964 * found.slope / abs(stats.norm.ppf(found.p / 2))
    )


def test_a_hump_is_structure_and_no_slope() -> None:
    trend = rate_trend(np.array([10, 40, 60, 40, 10]), np.full(5, 100))

    assert trend.slope == pytest.approx(0)
    assert trend.p == pytest.approx(1)
    assert trend.structure_p < 1e-10


def test_slope_and_remainder_add_up_to_the_test_of_equal_rates() -> None:
    hits = np.array([10, 22, 13, 31])

    trend = rate_trend(hits, np.full(4, 80))

    z = stats.norm.isf(trend.p / 2)
    whole = stats.chi2_contingency(np.stack([hits, 80 - hits]), correction=False)
    assert z**2 + trend.structure == pytest.approx(whole.statistic)


def test_false_alarms_are_as_rare_as_they_should_be() -> None:
    rng = np.random.default_rng(0)
    trends = [rate_trend(rng.binomial(200, 0.2, 12), np.full(12, 200)) for _ in range(2000)]

    for p in ([t.p for t in trends], [t.structure_p for t in trends]):
        assert 0.035 < np.mean(np.array(p) < 0.05) < 0.065


def test_nothing_is_said_without_layers_or_variation() -> None:
    assert np.isnan(rate_trend(np.array([1, 2, 3]), np.full(3, 9)).p)
    assert np.isnan(rate_trend(np.zeros(6, int), np.full(6, 9)).p)
    assert np.isnan(rate_trend(np.array([1, 2, 3, 4, 0]), np.array([9, 9, 9, 0, 0])).p)


def test_an_error_is_never_zero() -> None:
    assert rate_error(np.array([0]), np.array([100]))[0] == pytest.approx(0.013733, abs=1e-6)


def test_difference_of_rates_against_a_chi_squared_test() -> None:
    table = np.array([[12, 88], [30, 120]])
    expected = stats.chi2_contingency(table, correction=False).pvalue

    assert rate_difference_p(12, 100, 30, 150) == pytest.approx(expected)
    assert np.isnan(rate_difference_p(0, 0, 3, 9))
    assert rate_difference_p(0, 5, 0, 9) == 1.0


@pytest.mark.parametrize("counts", [(12, 100, 30, 150), (3, 40, 9, 300), (5, 6, 3, 9), (0, 40, 9, 300)])
def test_at_the_ends_of_an_interval_the_score_test_is_just_not_rejected(counts: tuple[int, ...]) -> None:
    hits, n, other_hits, other_n = counts
    seen = hits / n - other_hits / other_n

    for end in rate_difference_interval(*counts):
        # Independently of the closed form: the likeliest of a fine grid of rates that differ by so much.
        second = np.linspace(max(0, -end), min(1, 1 - end), 200_001)[1:-1]
        first = second + end
        likelihood = xlogy(hits, first) + xlogy(n - hits, 1 - first)
        likelihood += xlogy(other_hits, second) + xlogy(other_n - other_hits, 1 - second)
        a, b = first[likelihood.argmax()], second[likelihood.argmax()]
        error = np.sqrt(a * (1 - a) / n + b * (1 - b) / other_n)
        assert abs(seen - end) / error == pytest.approx(1.95996, rel=1e-3)


def test_an_interval_and_the_test_of_a_difference_agree() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        n, m = (int(one) for one in rng.integers(5, 200, 2))
        counts = int(rng.binomial(n, 0.1)), n, int(rng.binomial(m, 0.2)), m
        low, high = rate_difference_interval(*counts)
        seen = counts[0] / n - counts[2] / m

        assert low - 1e-9 <= seen <= high + 1e-9
        assert (low > 0 or high < 0) is (rate_difference_p(*counts) < 0.05)


def test_without_units_a_difference_has_no_interval() -> None:
    assert np.isnan(rate_difference_interval(0, 0, 3, 9)).all()


def test_series_that_go_together_are_told_by_their_stretches() -> None:
    a = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])

    rho, p = goes_with(a, 10 * a, block=2, seed=0)

    assert rho == pytest.approx(1)
    # Of the 24 orders of four stretches only the true one gives 1; none gives -1, for stretches still rise.
    assert p == pytest.approx(1 / 24)


def test_only_whole_stretches_are_moved() -> None:
    a = np.array([1.0, 2, 3, 4, 5, 6])
    orders = [[*x, *y, *z] for x, y, z in permutations(([3.0, 1], [6, 4], [5, 2]))]
    b = orders[0]

    rho, p = goes_with(a, np.array(b), block=2, seed=0)

    expected = stats.spearmanr(a, b).statistic
    assert rho == pytest.approx(expected)
    as_far = [abs(stats.spearmanr(a, order).statistic) >= abs(expected) - 1e-9 for order in orders]
    assert p == pytest.approx(np.mean(as_far))


def test_many_stretches_are_drawn_and_gaps_left_out() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 40))
    a[3] = np.nan

    rho, p = goes_with(a, b, block=2, seed=0, resamples=199)

    assert rho == pytest.approx(stats.spearmanr(np.delete(a, 3), np.delete(b, 3)).statistic)
    assert 1 / 200 <= p <= 1
    assert np.isnan(goes_with(a, np.ones(40), block=2, seed=0)[0])
    assert np.isnan(goes_with(a[:4], b[:4], block=2, seed=0)[0])
