"""Differences of estimates with intervals: worked by hand, and held against Student's interval."""

import math

import pytest

from layerscope.maths.interval_difference import difference_of_intervals


def test_ends_are_worked_by_hand() -> None:
    assert difference_of_intervals((5, 2, 6), (1, 0, 5)) == pytest.approx((4, 4 - 5, 4 + math.sqrt(2)))


def test_symmetric_intervals_add_in_squares() -> None:
    """Two means of SE 1 and 2: the difference has SE √5."""
    value, low, high = difference_of_intervals((3, 3 - 1.96, 3 + 1.96), (1, 1 - 3.92, 1 + 3.92))

    assert (value - low, high - value) == pytest.approx((1.96 * math.sqrt(5),) * 2)


def test_an_unknown_end_makes_that_end_unknown() -> None:
    value, low, high = difference_of_intervals((3, math.nan, 4), (1, 0, 2))

    assert value == 2
    assert math.isnan(low)
    assert not math.isnan(high)
