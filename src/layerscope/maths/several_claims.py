"""Intervals that hold for several claims at once, from an interval of each alone."""

from __future__ import annotations

import math


def widened(value: float, low: float, high: float, *, level: float, claims: int) -> tuple[float, float]:
    """Ends of an interval, moved out so that all of several claims' intervals hold at once.

    Bonferroni: each claim's interval is taken at level 1 − (1 − level) / claims. Each end keeps its own distance from
    the value, multiplied by the ratio of the two levels' normal quantiles, so that a skewed interval stays skewed. That
    is exact where an end's distance grows as a normal quantile does, and too short for tails heavier than that.

    Args:
        value: what the interval is of.
        low, high: ends of the interval at `level`; NaN stays NaN.
        level: in (0, 1).
        claims: how many; 1 changes nothing.

    Source: Dunn 1961.
    """
    from scipy.special import ndtri

    alone, together = ((1 + level) / 2, 1 - (1 - level) / (2 * claims))
    ratio = float(ndtri(together) / ndtri(alone))
    return value - ratio * (value - low), value + ratio * (high - value)


def is_above(low: float, high: float, smallest: float) -> bool | None:
    """Whether an effect is larger than the smallest of interest; None where its interval holds that size."""
    if math.isnan(low) or math.isnan(high):
        return None
    return True if low > smallest else False if high < smallest else None


def is_within(low: float, high: float, margin: float) -> bool | None:
    """Whether an effect is smaller than a margin either way, by two one-sided tests; None where it is not decided.

    Source: Schuirmann 1987 (two one-sided tests).
    """
    if math.isnan(low) or math.isnan(high):
        return None
    if -margin < low and high < margin:
        return True
    return False if low > margin or high < -margin else None
