"""Matched pairs by flipping signs."""

import numpy as np
import pytest

from layerscope.maths.permutation import sign_flip_p


def test_three_pairs_by_hand() -> None:
    # Of 8 patterns of (1, 2, 3), |sum| >= 6 in two, and of (1, 2, -3) |sum| >= 0 in all.
    assert sign_flip_p(np.array([1.0, 2.0, 3.0, np.nan]), seed=0) == (0.25, 3)
    assert sign_flip_p(np.array([1.0, 2.0, -3.0]), seed=0) == (1.0, 3)


def test_many_pairs_are_drawn_and_never_give_zero() -> None:
    p, n = sign_flip_p(np.full(40, 1.0), seed=0, resamples=999)

    assert (p, n) == (pytest.approx(0.001), 40)


def test_under_the_null_p_is_uniform() -> None:
    rng = np.random.default_rng(0)

    small = [sign_flip_p(rng.normal(size=12), seed=i, resamples=499)[0] <= 0.05 for i in range(300)]

    assert 0.02 <= np.mean(small) <= 0.09


def test_one_pair_says_nothing() -> None:
    assert np.isnan(sign_flip_p(np.array([1.0]), seed=0)[0])
