"""Formulas of attention statistics, worked by hand."""

import numpy as np
import pytest
import torch

from layerscope.maths.attention import (
    DISTANCE_BINS,
    bin_name,
    crossings,
    entropy,
    logarithm,
    pairs_after_same_token,
    pairs_with_same_token,
    uniform_pattern,
    variability,
)


def test_entropy_of_a_renormalised_row() -> None:
    # w = (.3, .1): p = (3/4, 1/4)
    w = np.array([[0.3, 0.1], [0.0, 0.0]])
    weighted_log = np.where(w > 0, w * np.log(np.where(w > 0, w, 1)), 0).sum(-1)
    expected = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))

    for found in (
        entropy(w.sum(-1), weighted_log),
        entropy(torch.tensor(w.sum(-1)), torch.tensor(weighted_log)),
    ):
        assert float(found[0]) == pytest.approx(expected)
        assert np.isnan(float(found[1]))


def test_the_logarithm_of_zero_is_unknown() -> None:
    np.testing.assert_allclose(logarithm(np.array([0.0, 1.0, np.e])), [np.nan, 0, 1])


def test_uniform_attention_within_a_window_of_two() -> None:
    visible = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], dtype=bool)

    np.testing.assert_allclose(uniform_pattern(visible), [[1, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]])


def test_two_texts_that_share_nothing_vary_by_one_half_and_equal_ones_not() -> None:
    # patterns (1, 0) and (0, 1): mean (.5, .5), summed deviation 2, attention 2
    assert float(variability(np.array(2.0), np.array(2.0))) == 0.5
    assert float(variability(np.array(0.0), np.array(2.0))) == 0


def test_the_block_ends_where_the_share_rises_through_the_level_and_may_return() -> None:
    end, back = crossings(np.array([0.1, 0.2, 0.4, 0.6, 0.2]), 0.3)

    assert end == pytest.approx(1.5)  # halfway from layer 1 to 2
    assert back == pytest.approx(3.75)  # three quarters of the way from layer 3 to 4


def test_a_block_without_an_end_and_one_without_a_beginning() -> None:
    assert np.isnan(crossings(np.array([0.1, 0.2]), 0.3)).all()
    end, back = crossings(np.array([0.5, 0.2, 0.5]), 0.3)
    assert end == 0
    assert np.isnan(back)


def test_pairs_with_and_after_the_same_token() -> None:
    ids = [5, 7, 5, 8, 5]

    assert pairs_with_same_token(ids) == [(2, 0), (4, 0), (4, 2)]
    assert pairs_after_same_token(ids) == [(2, 1), (4, 1), (4, 3)]
    assert pairs_after_same_token([3, 3]) == []  # what follows is the query itself


def test_bins_hold_every_distance_once() -> None:
    held = [sum(a <= d <= (b if b is not None else d) for a, b in DISTANCE_BINS) for d in range(400)]

    assert set(held) == {1}
    assert [bin_name(*ends) for ends in DISTANCE_BINS][2:] == ["2–5", "6–10", "11–50", "51–200", "> 200"]
