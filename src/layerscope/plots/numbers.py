"""Numbers as they stand in labels, hover texts and sentences."""

from __future__ import annotations

import math

_MINUS = "−"


def number(value: float) -> str:
    """Three meaningful digits: 0.423, 12.3, 4.1e-05."""
    return "unknown" if math.isnan(value) else f"{value:.3g}".replace("-", _MINUS)


def interval_text(low: float, high: float) -> str:
    """An interval in brackets, or that there is none."""
    return "no interval" if math.isnan(low) or math.isnan(high) else f"[{_ends(low, high)}]"


def with_interval(value: float, low: float, high: float) -> str:
    """A value with its interval, all to the same digit: two meaningful digits of the width.

    5.03, 4.31 to 5.92 becomes "5.0 [4.3, 5.9]".
    """
    if not (math.isfinite(low) and math.isfinite(high) and math.isfinite(value)):
        return f"{number(value)} {interval_text(low, high)}"
    return f"{_fixed(value, _decimals(low, high))} [{_ends(low, high)}]"


def _ends(low: float, high: float) -> str:
    decimals = _decimals(low, high)
    return f"{_fixed(low, decimals)}, {_fixed(high, decimals)}"


def _decimals(low: float, high: float) -> int:
    width = abs(high - low) or abs(high) or 1.0
    return min(9, max(0, 1 - math.floor(math.log10(width)))) if math.isfinite(width) else 1


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    # A rounded "-0.0" would claim a sign that is not known.
    return text.removeprefix("-") if not float(text) else text.replace("-", _MINUS)


def p_text(p: float) -> str:
    """A probability as it is written in a sentence: "p = 0.013", "p < 0.001"."""
    if math.isnan(p):
        return "p unknown"
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
