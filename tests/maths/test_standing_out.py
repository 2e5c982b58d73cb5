"""Places that differ from the others: worked by hand, and held against Student's test."""

import numpy as np
import pytest
from scipy import stats

from layerscope.maths.bootstrap import FEWEST_UNITS
from layerscope.maths.standing_out import from_the_others, p_by_resamples, sds_from_the_others


def test_each_place_is_held_against_the_mean_of_the_others() -> None:
    apart = from_the_others(np.array([[1.0, 2.0, 6.0], [1.0, np.nan, 4.0], [np.nan, 3.0, np.nan]]))

    np.testing.assert_allclose(apart[0], [-3, -1.5, 4.5])
    np.testing.assert_allclose(apart[1], [-3, np.nan, 3])
    assert np.isnan(apart[2]).all(), "nothing is known to hold it against"


def test_a_distance_is_counted_in_sds_of_the_others() -> None:
    sds = sds_from_the_others(np.array([1.0, 2.0, 3.0, 8.0]))

    assert sds[3] == pytest.approx(6 / 1.0), "1, 2, 3: mean 2, SD 1"
    assert sds[0] == pytest.approx((1 - 13 / 3) / np.std([2, 3, 8], ddof=1))
    assert np.isposinf(sds_from_the_others(np.array([1.0, 1.0, 1.0, 2.0]))[3])


def test_a_p_by_resamples_is_student_s_of_a_mean() -> None:
    rng = np.random.default_rng(0)
    sample = rng.normal(0.4, 1.0, size=12)
    draws = sample[rng.integers(0, 12, size=(20_000, 12))].mean(axis=1)

    found = p_by_resamples(np.array(sample.mean()), draws, units=12)

    assert found == pytest.approx(stats.ttest_1samp(sample, 0.0).pvalue, rel=0.05)


def test_too_few_units_or_resamples_give_no_p() -> None:
    draws = np.random.default_rng(1).normal(size=(200, 2))
    units = np.array([FEWEST_UNITS - 1, FEWEST_UNITS])

    assert np.isnan(p_by_resamples(np.ones(2), draws, units=units)).tolist() == [True, False]
    assert np.isnan(p_by_resamples(np.ones(2), draws[:1], units=9)).all()
    assert np.isnan(p_by_resamples(np.ones(2), draws * np.nan, units=9)).all(), "no resample is known"


def test_resamples_without_spread_say_no_more_than_their_number() -> None:
    p = p_by_resamples(np.array([1.0, 0.0]), np.tile([1.0, 0.0], (199, 1)), units=9)

    np.testing.assert_allclose(p, [1 / 200, 1])
