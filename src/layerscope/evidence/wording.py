"""Numbers and the few patterns of sentences, each worded here and nowhere else (docs/adding_an_experiment.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from layerscope.plots.numbers import decimals_of, fixed, p_text

ALPHA = 0.05
"""A p below this is significant: after correction for every comparison of its family."""

_WORDS = {
    "block": ("layer", "layers"),
    "layer": ("layer", "layers"),
    "depth": ("layer", "layers"),
    "nat": ("nat", "nats"),
    "token": ("token", "tokens"),
    "word": ("word", "words"),
    "point": ("percentage point", "percentage points"),
}
"""Units as sentences name them, one and several; "share" is written as a percentage, "1" not at all."""
_IN_HUNDREDTHS = ("share", "point")
_FLOORS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def measured(value: float, unit: str, low: float = math.nan, high: float = math.nan) -> str:
    """A number with its unit, its digits by the interval: "4.7 layers", "14%", "0.058"."""
    return _with_unit(_digits(value, unit, low, high), unit)


def interval(unit: str, low: float, high: float, level: float) -> str:
    """An interval in words: "95% CI 3.0 to 5.9"; empty where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"{100 * level:g}% CI {ends(unit, low, high)}"


def ends(unit: str, low: float, high: float) -> str:
    """Two ends with the digits of their interval: "3.0 to 5.9", "14% to 20%"."""
    sign = "%" * (unit == "share")
    return " to ".join(f"{_digits(end, unit, low, high)}{sign}" for end in (low, high))


def twins_too(untrained: tuple[str, str] | None) -> str:
    """Said with every claim whose null is not an untrained twin's: only twins tell what training brought."""
    if untrained is None or untrained[0] != "effect":
        return ""
    return f"untrained twins show an effect too: {untrained[1]}"


def range_of_twins(unit: str, low: float, high: float) -> str:
    """Where one more untrained twin would lie: "95% prediction interval 0.5 to 1.1"."""
    return f"95% prediction interval {ends(unit, low, high)}"


def p_in_words(p: float, least: float = math.nan) -> str:
    """A p in a sentence, with `<` where it is the smallest that could come out; empty where there is none."""
    if math.isnan(p):
        return ""
    if p <= least * (1 + 1e-9):
        return f"p < {next(floor for floor in _FLOORS if floor > p or floor == 1.0):g}"
    return p_text(p)


def counted(n: Sequence[int], units: str) -> str:
    """ "12 passages", "1 passage", "4 against 2"."""
    if len(n) == 1:
        return f"{n[0]} {units.removesuffix('s') if n[0] == 1 else units}"
    return " against ".join(map(str, n))


def ordinal(place: int) -> str:
    """What stands before "highest": nothing for the first, "second ", "third ", "4th "."""
    return {1: "", 2: "second ", 3: "third "}.get(place, f"{place}th ")


def article(noun: str) -> str:
    """A noun with its article: "a sink", "an induction head"."""
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def sentence(text: str, *brackets: str) -> str:
    """A sentence with a capital, what stands in brackets at its end, and a full stop."""
    inside = [bracket for bracket in brackets if bracket]
    whole = text[:1].upper() + text[1:]
    return f"{whole} ({', '.join(inside)})." if inside else f"{whole}."


def null_sentence(nothing: str, *brackets: str) -> str:
    """What is said where an effect was looked for and none can be shown."""
    return sentence(f"No detectable {nothing}", *brackets)


def too_few_sentence(
    nothing: str, n: Sequence[int], units: str, least: float, adjusted: float, estimate: str
) -> str:
    """What is said where no p below ALPHA could have come out, or no p at all."""
    known = [f"smallest possible p = {_bare(least)}"] if math.isfinite(least) else []
    if math.isfinite(adjusted) and adjusted != least:
        known = (
            [*known, f"adjusted {_bare(adjusted)}"] if known else [f"smallest possible p = {_bare(adjusted)}"]
        )
    inside = "; ".join(
        filter(None, [counted(n, units) if n else "", ", ".join(known), f"estimate {estimate}"])
    )
    return f"Too few {units} to test the {nothing} ({inside})."


def unknown_sentence(nothing: str, why: str) -> str:
    """What is said where there is not even an estimate."""
    return sentence(f"No estimate of the {nothing}", why)


def _bare(p: float) -> str:
    return p_text(p).removeprefix("p ").removeprefix("= ")


def _digits(value: float, unit: str, low: float, high: float) -> str:
    factor = 100 if unit in _IN_HUNDREDTHS else 1
    decimals = decimals_of(factor * low, factor * high)
    # Depths and tokens that are counted have no decimals, nor have the ends of their intervals.
    counted = all(float(factor * one).is_integer() for one in (value, low, high))
    return fixed(factor * value, min(decimals, 0) if counted and decimals is not None else decimals)


def _with_unit(number: str, unit: str) -> str:
    if unit == "share":
        return f"{number}%"
    if unit in ("1", ""):
        return number
    one, several = _WORDS.get(unit, (unit, unit))
    return f"{number} {one if number == '1' else several}"
