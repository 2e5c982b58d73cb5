"""Ratios of sums: by hand, and by simulation of their intervals."""

import numpy as np
import pytest

from layerscope.maths.ratios import bootstrap_ratio, known_mean, ratio, share

ABOVE = np.array([[1.0, 0.0], [3.0, 0.0]])
BELOW = np.array([[1.0, 0.0], [7.0, 0.0]])


def test_a_ratio_of_sums_weighs_units_by_what_they_hold() -> None:
    np.testing.assert_allclose(ratio(ABOVE, BELOW), [0.5, np.nan])  # (1 + 3) / (1 + 7), not (1 + 3/7) / 2


def test_a_share_of_nothing_or_of_less_is_not_known() -> None:
    np.testing.assert_array_equal(
        share(np.array([1.0, 1, 1]), np.array([4.0, 0, -4])), [0.25, np.nan, np.nan]
    )


def test_means_of_ratios_leave_out_what_is_not_known() -> None:
    found = bootstrap_ratio(ABOVE, BELOW, seed=0, resamples=50, mean_of_last=True)

    assert float(found.value) == 0.5
    assert int(found.n) == 2
    np.testing.assert_allclose(known_mean(np.array([[1.0, np.nan, 3.0], [np.nan] * 3])), [2, np.nan])


def test_intervals_hold_the_true_ratio_as_often_as_they_say() -> None:
    rng, holds = np.random.default_rng(0), 0
    for _ in range(400):
        below = rng.uniform(1, 20, size=(24, 1))
        above = below * 0.3 + rng.normal(0, 0.5, size=(24, 1)) * np.sqrt(below)
        found = bootstrap_ratio(above, below, seed=int(rng.integers(10**6)), resamples=400)
        holds += int(found.low[0] <= 0.3 <= found.high[0])

    assert 0.91 <= holds / 400 <= 0.98


def test_all_cells_meet_the_same_draws() -> None:
    rng = np.random.default_rng(1)
    above, below = rng.uniform(size=(10, 1)), rng.uniform(1, 2, size=(10, 1))
    twice = bootstrap_ratio(np.repeat(above, 2, axis=1), np.repeat(below, 2, axis=1), seed=3, resamples=100)

    assert twice.low[0] == twice.low[1] < twice.value[0] < twice.high[1]
    assert float(bootstrap_ratio(above, below, seed=3, resamples=100).low[0]) == pytest.approx(twice.low[0])
