"""Rank correlation by hand."""

import numpy as np
import pytest

from layerscope.maths.correlation import mean_ranks, rank_correlation


def test_by_hand() -> None:
    assert rank_correlation(np.array([1.0, 5.0, 30.0]), np.array([2.0, 3.0, 99.0])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)
    # Ranks 1.5, 1.5, 3 against 1, 2, 3: covariance 1.5 over the root of 1.5 times 2.
    assert rank_correlation(np.array([1.0, 1.0, 3.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(0.8660254)
    # Ranks 1 2.5 2.5 4 and 2 1 3 4, less 2.5: products .75 + 0 + 0 + 2.25 = 3; squares 4.5 and 5.
    assert rank_correlation(np.array([1, 5, 5, 9]), np.array([2, 1, 3, 4])) == pytest.approx(
        3 / np.sqrt(22.5)
    )
    assert np.isnan(rank_correlation(np.ones(3), np.arange(3.0)))
    assert np.isnan(rank_correlation(np.array([1.0, np.nan, 3.0]), np.arange(3.0)))
    assert np.isnan(rank_correlation(np.array([np.nan]), np.array([np.nan])))


def test_equal_values_share_the_mean_of_their_ranks_as_in_scipy() -> None:
    from scipy.stats import rankdata

    values = np.array([3.0, 1.0, 3.0, 2.0, 3.0, 1.0])

    assert mean_ranks(values).tolist() == [5, 1.5, 5, 3, 5, 1.5]
    many = np.random.default_rng(0).integers(0, 20, 200).astype(float)
    np.testing.assert_array_equal(mean_ranks(many), rankdata(many))
