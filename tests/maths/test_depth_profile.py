import numpy as np
import pytest

from layerscope.maths.depth_profile import apart, centroid, half_rise, last_above


def test_the_centroid_of_a_profile_by_hand() -> None:
    np.testing.assert_allclose(
        centroid(np.array([[0.0, 1, 0, 0], [1, 0, 0, 1], [1, 2, 1, 0]])), [1.0, 1.5, 1.0]
    )


def test_missing_places_are_left_out_and_nothing_has_no_centroid() -> None:
    assert centroid(np.array([np.nan, 2.0, 2.0])) == 1.5
    assert np.isnan(centroid(np.zeros(3)))
    with pytest.raises(ValueError, match="at least 0"):
        centroid(np.array([1.0, -1.0]))


def test_scale_does_not_move_a_centroid() -> None:
    weights = np.random.default_rng(0).random((5, 7))

    np.testing.assert_allclose(centroid(weights), centroid(weights * 100))


def test_half_rise_by_hand() -> None:
    # Largest 4, half 2: between place 1 (height 1) and place 2 (height 3), half of the way.
    np.testing.assert_allclose(half_rise(np.array([0, 1, 3, 4, 1.0])), 1.5)
    np.testing.assert_allclose(half_rise(np.array([[5.0, 1], [0, 2]])), [0.0, 0.5])


def test_a_curve_that_never_rises_has_no_half_rise() -> None:
    assert np.isnan(half_rise(np.zeros(3)))
    assert np.isnan(half_rise(np.array([0, np.nan, 1.0])))


def test_places_are_apart_to_a_thousandth_of_a_block() -> None:
    found = apart(np.array([2.0, 1.00004, 1.0]), np.array([0.5, 1.0, 1.00004]))

    np.testing.assert_array_equal(found, [1.5, 0.0, 0.0])
    assert not np.signbit(found).any()


def test_last_above_by_hand() -> None:
    nan = np.nan
    curves = np.array(
        [
            [1, 1, 0, 0],  # between places 1 and 2
            [0.9, 0.7, 0.3, 0],  # from .7 to .3: half of the way
            [0.1, 0.2, 0.1, 0],  # never there
            [nan, 0.8, nan, 0.2],  # .8 to .2 over two places
            [1, 0.2, 0.6, 0.4],  # the last time counts
            [1, 0.5, 0.2, 0],  # exactly the level is above
            [1, 1, 1, 1],  # never leaves
            [nan, nan, nan, nan],
        ]
    )

    np.testing.assert_allclose(last_above(curves, 0.5), [1.5, 1.5, 0, 2, 2.5, 1, 3, nan])
    np.testing.assert_allclose(last_above(curves[4], 0.5), 2.5)
