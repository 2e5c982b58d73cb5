from __future__ import annotations

import pytest

from layerscope.jobs.forecast import next_to_measure, seconds_of_all


def _measured(sizes: list[float], seconds_of: list[float], limit: float) -> list[int]:
    """Items in the order in which they are measured, where each takes these seconds."""
    measured: dict[int, float] = {}
    while (place := next_to_measure(sizes, measured, limit)) is not None:
        measured[place] = seconds_of[place]
    return list(measured)


def test_two_small_items_come_first_then_the_largest_then_others_of_unlike_size() -> None:
    sizes = [5.0, 1.0, 9.0, 1.5, 7.0, 5.0, 5.0, 5.0]

    assert _measured(sizes, [0.1 * size for size in sizes], limit=0.0) == [1, 3, 2, 0, 4, 6]


def test_two_items_alike_are_enough() -> None:
    assert _measured([4.0, 4.0, 4.0, 4.0], [3.0] * 4, limit=0.0) == [0, 1]


def test_a_slow_first_item_is_not_measured_twice() -> None:
    assert _measured([4.0, 4.0, 4.0], [30.0, 30.0, 30.0], limit=0.0) == [0]


def test_the_large_item_is_one_that_takes_seconds_not_minutes() -> None:
    sizes = [1.0, 1.0, 3.0, 4.0, 100.0]

    # The last would take 200 s.
    assert _measured(sizes, [2.0 * size for size in sizes], limit=0.0) == [0, 1, 3, 2]


def test_more_are_measured_from_all_over_the_stage_until_the_time_is_up() -> None:
    sizes = [1.0] * 8

    assert _measured(sizes, [1.0] * 8, limit=5.0) == [0, 1, 4, 2, 6]


def test_seconds_are_a_fixed_time_and_one_that_goes_with_size() -> None:
    # Warming up takes 0.7 s more; then 0.5 s an item and 0.1 s a unit: 4 x 0.5 + 0.1 x 100.
    measured = [(10.0, 0.5 + 1.0 + 0.7), (12.0, 0.5 + 1.2), (60.0, 0.5 + 6.0)]
    cold = [(10.0, 1.9), *measured[1:]]

    assert seconds_of_all([10.0, 12.0, 18.0, 60.0], cold) == pytest.approx(12.0)
    assert seconds_of_all([10.0, 12.0, 18.0, 60.0], measured) == pytest.approx(12.0, rel=0.1)


def test_one_cold_item_is_better_than_none() -> None:
    assert seconds_of_all([2.0, 4.0], [(2.0, 1.0)]) == pytest.approx(3.0)


def test_a_large_item_that_takes_no_longer_than_a_small_one_is_no_bargain() -> None:
    assert seconds_of_all([1.0, 9.0, 9.0], [(1.0, 4.0), (1.2, 3.0), (9.0, 2.9)]) == pytest.approx(8.85)
