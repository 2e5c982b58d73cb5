"""Rank correlation by hand."""

import numpy as np
import pytest

from layerscope.maths.correlation import rank_correlation


def test_by_hand() -> None:
    assert rank_correlation(np.array([1.0, 5.0, 30.0]), np.array([2.0, 3.0, 99.0])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)
    # Ranks 1.5, 1.5, 3 against 1, 2, 3: covariance 1.5 over the root of 1.5 times 2.
    assert rank_correlation(np.array([1.0, 1.0, 3.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(0.8660254)
    assert np.isnan(rank_correlation(np.ones(3), np.arange(3.0)))
