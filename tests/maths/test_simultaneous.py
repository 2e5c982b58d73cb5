"""Intervals for all of a family, p from resamples, and where one more twin would lie."""

import numpy as np
import pytest

from layerscope.maths.bootstrap import means_of_resamples, resampled_counts
from layerscope.maths.permutation import (
    least_p_of_signs,
    least_p_of_splits,
    permutation_difference,
    sign_flip_p,
)
from layerscope.maths.prediction import prediction_interval, prediction_p
from layerscope.maths.simultaneous import largest_t_interval, largest_t_p, two_sided_p


def test_an_interval_for_one_value_is_student_s() -> None:
    rows = np.random.default_rng(1).normal(size=(12, 1))
    draws = means_of_resamples(rows, resampled_counts(12, seed=0, resamples=4000))

    found = largest_t_interval(rows.mean(axis=0), draws, units=12)

    half = 2.201 * rows.std(ddof=1) / np.sqrt(12)  # t(.975, 11)
    np.testing.assert_allclose(found.high - found.value, half, rtol=0.06)
    np.testing.assert_allclose(found.value - found.low, found.high - found.value)


def test_ends_leave_out_nothing_exactly_where_p_is_small() -> None:
    rng = np.random.default_rng(2)
    for shift in (0.2, 0.6, 1.2):
        rows = rng.normal(size=(15, 5)) + shift
        draws = means_of_resamples(rows, resampled_counts(15, seed=0, resamples=1000))
        low = largest_t_interval(rows.mean(axis=0), draws, units=15, level=0.9).low
        p = largest_t_p(rows.mean(axis=0), draws, units=15)
        assert ((low > 0) <= (p < 0.1)).all()  # two sides at 90 % are at least as strict as one at 10 %


def test_missing_values_are_left_out_of_means_of_resamples() -> None:
    rows = np.array([[1.0, np.nan], [3.0, 4.0]])

    found = means_of_resamples(rows, np.array([[1.0, 1.0], [2.0, 0.0]]))

    np.testing.assert_array_equal(found, [[2, 4], [1, np.nan]])


def test_two_sided_p_of_a_hand_worked_case() -> None:
    assert two_sided_p(np.array([1.0, 2, 3, -1, np.nan])) == pytest.approx(2 * 2 / 5)
    assert two_sided_p(np.ones(99)) == pytest.approx(2 / 100)
    assert np.isnan(two_sided_p(np.array([np.nan])))


@pytest.mark.parametrize(("n", "m"), [(4, 2), (3, 3), (2, 2)])
def test_no_split_gives_a_smaller_p_than_the_least(n: int, m: int) -> None:
    apart = permutation_difference(np.arange(n) + 100.0, np.arange(m) / 7, seed=0)

    assert apart.p == pytest.approx(least_p_of_splits(n, m))
    assert np.isnan(least_p_of_splits(1, 5))
    assert least_p_of_splits(30, 30) == 1e-4


@pytest.mark.parametrize("n", [2, 5, 9])
def test_no_signs_give_a_smaller_p_than_the_least(n: int) -> None:
    assert sign_flip_p(np.arange(n) + 5.0, seed=0)[0] == pytest.approx(least_p_of_signs(n))
    assert np.isnan(least_p_of_signs(1))


def test_the_next_of_six_values_lies_in_the_prediction_interval() -> None:
    low, high = prediction_interval(np.array([1.0, 2, 3, 4, 5]))

    assert (low, high) == pytest.approx(
        (3 - 2.7764 * 1.5811 * np.sqrt(1.2), 3 + 2.7764 * 1.5811 * np.sqrt(1.2)), abs=1e-3
    )
    assert np.isnan(prediction_interval(np.array([1.0, 2, 3, 4, np.nan]))).all()


def test_a_value_outside_the_prediction_interval_has_a_p_below_the_level() -> None:
    values = np.array([1.0, 2, 3, 4, 5])
    low, high = prediction_interval(values)
    just = np.array([low * (1 - 1e-9), high * (1 - 1e-9), high * (1 + 1e-9), 3.0])

    p = prediction_p(just, np.stack([values] * 4, axis=1))

    np.testing.assert_allclose(p[:3], 0.05, rtol=1e-6)
    assert p[2] < 0.05 < p[1]
    assert p[3] == 1
    assert np.isnan(prediction_p(np.array(9.0), values[:4]))
    assert prediction_p(np.array(9.0), np.ones(5)) == 0
