"""The stretch between two models' curves: planted by fraction, by number, and between."""

import numpy as np
import pytest

from layerscope.maths.stretch import stretch


def hills(at: float, width: float, places: int) -> np.ndarray:
    """Two curves with a hill, of unlike scale and sign."""
    hill = np.exp(-(((np.arange(1, places + 1) - at) / width) ** 2))
    return np.stack([hill, 3 - 7 * hill])


def test_curves_that_agree_by_fraction_are_stretched_by_the_ratio_of_lengths() -> None:
    assert stretch(hills(2, 1, 4), hills(4, 2, 10), np.ones(2)) == pytest.approx(2, rel=0.05)


def test_curves_that_agree_by_number_are_not_stretched() -> None:
    assert stretch(hills(2, 1, 4), hills(2, 1, 10), np.ones(2)) == pytest.approx(1, rel=0.03)


def test_a_model_with_itself_gives_one_and_the_other_way_round_the_inverse() -> None:
    assert stretch(hills(3, 2, 8), hills(3, 2, 8), np.ones(2)) == 1
    there = stretch(hills(3, 2, 6), hills(5, 10 / 3, 10), np.ones(2))
    back = stretch(hills(5, 10 / 3, 10), hills(3, 2, 6), np.ones(2))
    assert there * back == pytest.approx(1, rel=0.1)


def test_weights_decide_between_curves_that_disagree() -> None:
    first = np.concatenate([hills(2, 1, 4)[:1]] * 2)
    second = np.concatenate([hills(2, 1, 10)[:1], hills(4, 2, 10)[:1]])

    assert stretch(first, second, np.array([1.0, 0.1])) == pytest.approx(1, rel=0.1)
    assert stretch(first, second, np.array([0.1, 1.0])) == pytest.approx(2, rel=0.1)


def test_nothing_that_varies_has_no_stretch() -> None:
    assert np.isnan(stretch(np.ones((1, 6)), np.ones((1, 8)), np.ones(1)))
    assert np.isnan(stretch(np.eye(2), np.eye(2), np.ones(2))), "two places do not say"


def test_many_draws_at_once_are_as_one_by_one() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=(20, 3, 6)), random.normal(size=(20, 3, 11))
    first[4, 1] = 0.5  # a curve that does not vary counts nothing
    weights = np.array([1.0, 2.0, 0.5])

    together = stretch(first, second, weights)

    np.testing.assert_array_equal(
        together, [stretch(*pair, weights) for pair in zip(first, second, strict=True)]
    )
    assert np.ptp(together) > 0.5
