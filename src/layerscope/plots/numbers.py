"""Numbers as they stand in labels, hover texts and sentences."""

from __future__ import annotations

import math

_MINUS = "−"
_MOST_DECIMALS = 6
_ROUNDING = 1e-6
"""Of the larger end: an interval that is narrower has no width, only the rounding of float32."""


def number(value: float) -> str:
    """Three meaningful digits: 0.423, 12.3, 4.1e-05."""
    return "unknown" if math.isnan(value) else f"{value:.3g}".replace("-", _MINUS)


def interval_text(low: float, high: float) -> str:
    """An interval in brackets, or that there is none."""
    if math.isnan(low) or math.isnan(high):
        return "no interval"
    decimals = decimals_of(low, high)
    return f"[{fixed(low, decimals)}, {fixed(high, decimals)}]"


def with_interval(value: float, low: float, high: float) -> str:
    """A value with its interval, all to the same digit: 5.03, 4.31 to 5.92 becomes "5.0 [4.3, 5.9]"."""
    if not (math.isfinite(low) and math.isfinite(high) and math.isfinite(value)):
        return f"{number(value)} {interval_text(low, high)}"
    return f"{fixed(value, decimals_of(low, high))} {interval_text(low, high)}"


def decimals_of(low: float, high: float) -> int | None:
    """Decimals of a value with this interval: one significant digit of the half-width, two where the first is 1.

    Never more than four digits of the larger end. Negative for tens,
    hundreds, ...; None where the interval has no width, and three digits must do.
    """
    half, larger = abs(high - low) / 2, max(abs(low), abs(high))
    if half <= _ROUNDING * larger or not math.isfinite(half):
        return None
    place = math.floor(math.log10(half))
    first = int(half / 10.0**place + 1e-9)
    return min((first == 1) - place, 3 - math.floor(math.log10(larger)))


def fixed(value: float, decimals: int | None) -> str:
    """A number to so many decimals, with a true minus and never a minus before zero."""
    if decimals is None or decimals > _MOST_DECIMALS:
        return number(value)
    text = f"{round(value, decimals):.{max(0, decimals)}f}"
    return text.removeprefix("-") if not float(text) else text.replace("-", _MINUS)


def p_text(p: float) -> str:
    """A probability as it is written in a sentence: "p = 0.013", "p < 0.001"."""
    if math.isnan(p):
        return "p unknown"
    if p < 0.001:
        return "p < 0.001"
    return "p < 0.05" if 0.0495 <= p < 0.05 else f"p = {p:.2g}"  # never 0.05 where it is below
