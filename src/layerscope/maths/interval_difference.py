"""The interval of a difference of two numbers of which only the intervals are known."""

from __future__ import annotations

import math


def difference_of_intervals(
    one: tuple[float, float, float], other: tuple[float, float, float]
) -> tuple[float, float, float]:
    """The difference of two independent estimates with its ends, from their own ends.

    d − √((a − l_a)² + (u_b − b)²) to d + √((u_a − a)² + (b − l_b)²): ends that are not symmetric stay so.

    Args:
        one: value, low and high.
        other: the same of what is taken from it, at the same level.

    Returns:
        Value, low and high; NaN where any of what they rest on is.

    Source: Zou & Donner 2008, "Construction of confidence limits about effect measures", by the method of variance
    estimates recovered.
    """
    (a, a_low, a_high), (b, b_low, b_high) = one, other
    difference = a - b
    return (
        difference,
        difference - math.hypot(a - a_low, b_high - b),
        difference + math.hypot(a_high - a, b - b_low),
    )
