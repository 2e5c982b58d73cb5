import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerscope.maths.moments import Moments, merge, moments_of, standard_deviation

NUMBERS = st.lists(st.floats(-1e3, 1e3), max_size=12).map(np.array)


def close_to(expected):
    return (
        expected.count,
        pytest.approx(expected.mean, abs=1e-8),
        pytest.approx(expected.squares, rel=1e-8, abs=1e-6),
    )


def parts(moments):
    return moments.count, moments.mean, moments.squares


def test_moments_of_a_hand_worked_case():
    # 2, 4, 4, 4, 5, 5, 7, 9: mean 5, squared deviations 9 + 1 + 1 + 1 + 0 + 0 + 4 + 16
    values = np.array([[2.0, 4, 4, 4], [5, 5, 7, 9]])

    assert moments_of(values) == Moments(count=8, mean=5.0, squares=32.0)
    assert standard_deviation(moments_of(values), unbiased=False) == 2
    assert standard_deviation(moments_of(values)) == pytest.approx(math.sqrt(32 / 7))


def test_merge_of_a_hand_worked_case():
    # 1, 3 and 8: means 2 and 8, together 4; 9 + 1 + 16
    assert merge(moments_of(np.array([1.0, 3])), moments_of(np.array([8.0]))) == Moments(3, 4.0, 26.0)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_any_grouping_gives_the_moments_of_the_whole(a, b, c):
    whole = moments_of(np.concatenate([a, b, c]))
    x, y, z = moments_of(a), moments_of(b), moments_of(c)

    assert parts(merge(merge(x, y), z)) == close_to(whole)
    assert parts(merge(x, merge(y, z))) == close_to(whole)
    assert parts(merge(z, merge(y, x))) == close_to(whole)


def test_the_default_spread_is_that_of_torch():
    embeddings = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    assert standard_deviation(moments_of(embeddings)) == pytest.approx(embeddings.std().item())
    assert standard_deviation(moments_of(embeddings), unbiased=False) == pytest.approx(
        embeddings.numpy().std()
    )


def test_a_large_mean_does_not_swallow_the_spread():
    values = np.array([1e9, 1e9 + 1, 1e9 + 2])

    halves = merge(moments_of(values[:1]), moments_of(values[1:]))

    assert standard_deviation(moments_of(values)) == pytest.approx(1)
    assert standard_deviation(halves) == pytest.approx(1)


def test_half_precision_values_are_counted_in_float64():
    assert moments_of(torch.full((4096,), 100.0, dtype=torch.float16)).mean == 100


def test_too_few_numbers_have_no_spread():
    empty, one = moments_of(np.array([])), moments_of(np.array([3.0]))

    assert merge(empty, empty) == empty == Moments()
    assert merge(empty, one) == one == merge(one, empty)
    assert math.isnan(standard_deviation(one))
    assert standard_deviation(one, unbiased=False) == 0
    assert math.isnan(standard_deviation(empty, unbiased=False))
