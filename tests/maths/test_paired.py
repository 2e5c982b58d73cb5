"""Paired differences and rank correlation, by hand and under the null."""

import numpy as np
import pytest

from layerscope.maths.paired import rank_correlation, sign_flip_p


def test_seven_differences_of_one_sign_are_as_rare_as_two_in_a_hundred_and_twenty_eight() -> None:
    assert sign_flip_p(np.ones(7), seed=0) == pytest.approx(2 / 128, abs=0.004)
    assert sign_flip_p(np.array([1.0, -1.0, 1.0, -1.0]), seed=0) == 1
    assert np.isnan(sign_flip_p(np.array([1.0, np.nan]), seed=0))


def test_under_the_null_few_p_are_small() -> None:
    rng = np.random.default_rng(0)
    small = [sign_flip_p(rng.normal(size=12), seed=i, resamples=499) < 0.05 for i in range(400)]

    assert np.mean(small) <= 0.07


def test_rank_correlation_of_a_hand_worked_case() -> None:
    # ranks 1 2.5 2.5 4 and 2 1 3 4, less 2.5: products .75 + 0 + 0 + 2.25 = 3; squares 4.5 and 5
    assert rank_correlation(np.array([1, 5, 5, 9]), np.array([2, 1, 3, 4])) == pytest.approx(
        3 / np.sqrt(22.5)
    )
    assert rank_correlation(np.array([1, 2, 3]), np.array([10, 20, 21])) == pytest.approx(1)
    assert np.isnan(rank_correlation(np.array([1, 1, 1]), np.array([1, 2, 3])))
