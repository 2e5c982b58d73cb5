from __future__ import annotations

import math

import pytest

from layerscope.plots.numbers import interval_text, number, p_text, with_interval


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (5.03, 4.31, 5.92, "5.0 [4.3, 5.9]"),
        (-0.0123, -0.0345, 0.0101, "−0.01 [−0.03, 0.01]"),
        (1234.4, 1200.0, 1301.0, "1230 [1200, 1300]"),
        (0.3, -0.004, 0.9, "0.3 [0.0, 0.9]"),
        (0.5, 0.5, 0.5, "0.5 [0.5, 0.5]"),
        (4.69, 3.0, 5.9, "4.7 [3.0, 5.9]"),  # half of it is 1.45: its first digit is a 1, so two of it count
        (0.0578, 0.0421, 0.0724, "0.058 [0.042, 0.072]"),
        (99.9, 99.89, 99.91, "99.90 [99.89, 99.91]"),
        (99.99999, 99.99998, 100.00001, "100 [100, 100]"),
        (0.5, math.nan, 1.0, "0.5 no interval"),
        (math.nan, math.nan, math.nan, "unknown no interval"),
    ],
)
def test_a_value_and_its_interval_end_at_the_same_digit(
    value: float, low: float, high: float, text: str
) -> None:
    assert with_interval(value, low, high) == text


def test_numbers_alone() -> None:
    assert number(-0.04236) == "−0.0424"
    assert number(math.nan) == "unknown"
    assert interval_text(0.1, 0.34) == "[0.10, 0.34]"


def test_p_is_never_zero() -> None:
    assert [p_text(p) for p in (0.0, 0.00099, 0.0132, 0.0496, 0.05, math.nan)] == [
        "p < 0.001",
        "p < 0.001",
        "p = 0.013",
        "p < 0.05",
        "p = 0.05",
        "p unknown",
    ]
