"""Does a curve over depth fall into phases, and where does one end and the next begin?

A curve, or several at once, is cut into stretches; within a stretch each is taken for level. The cut
that leaves the least squares is found exactly. More cuts always leave less, and a smooth slope can be
cut as well as a staircase: so the number of cuts is chosen by an information criterion, and a staircase
must also beat a straight line and a parabola. Where it does not, there is drift and no phases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, divide, to_float64
from layerscope.maths.bootstrap import Interval, interval_of_draws

_NOTHING_LEFT = 1e-3
"""Share of the variance below which what is left counts as nothing: means over many texts hardly vary, and
by the logarithm of next to nothing any further cut would pay."""


@dataclass(frozen=True)
class Phases:
    """The best description of a curve as phases, beside the best as drift.

    Attributes:
        changes: places at which a phase begins, first phase left out: 3 means that places 0, 1 and 2 lie
            before the change. Empty where no cut is worth its price.
        criterion: of these phases, lower is better.
        drift: criterion of the better of a straight line and a parabola.
        explained: share of the curve's variance over places that the phases explain, in [0, 1].
    """

    changes: tuple[int, ...]
    criterion: float
    drift: float
    explained: float

    @property
    def better_than_drift(self) -> bool:
        """Whether phases describe the curve better than a smooth slope."""
        return bool(self.changes) and self.criterion < self.drift


def cut(signal: Float[Array, "place curve"], changes: int) -> tuple[int, ...]:
    """The places at which phases begin in the cut with so many changes that leaves the least squares.

    Exact, by dynamic programming over all cuts. Of equal ones the one whose changes come first counts.

    Raises:
        ValueError: more changes than places between places.

    Source: Jackson et al. 2005, "An algorithm for optimal partitioning of data on an interval".
    """
    rows = to_float64(signal)
    n = len(rows)
    if not 0 <= changes < n:
        raise ValueError(f"expected 0 to {n - 1} changes in {n} places, found {changes}")
    left = _squares_left(rows)
    best, came = left[0].copy(), np.zeros((changes + 1, n), dtype=int)  # best[j]: places 0 .. j in one phase
    for used in range(1, changes + 1):
        tried = np.full((n, n), np.inf)  # [end, start of the last phase]
        for end in range(used, n):
            starts = np.arange(used, end + 1)
            tried[end, starts] = best[starts - 1] + left[starts, end]
        came[used] = tried.argmin(axis=1)
        best = tried.min(axis=1)
    found, end = [], n - 1
    for used in range(changes, 0, -1):
        start = int(came[used, end])
        found.append(start)
        end = start - 1
    return tuple(reversed(found))


def phases(signal: Float[Array, "place curve"], *, most: int = 3) -> Phases:
    """How many phases, where, and whether a smooth slope does as well.

    With n places, c curves, R the squares left and k numbers estimated, the criterion is
    n c ln(R / (n c)) + k ln(n c): Schwarz's. A staircase of m changes estimates (m + 1) c levels and m
    places; a line 2 c numbers, a parabola 3 c. Curves of one scale each count alike: standardise them
    first.

    Args:
        signal: one row per place, one column per curve, without NaN.
        most: changes to consider.

    Returns:
        `Phases`; no changes where none pays.

    Raises:
        ValueError: fewer than three places, or a NaN.

    Source: Schwarz 1978; Yao 1988, "Estimating the number of change-points via Schwarz' criterion".
    """
    rows = to_float64(signal)
    if len(rows) < 3 or np.isnan(rows).any():
        raise ValueError(f"expected three places or more without NaN, found shape {rows.shape}")
    total = float(((rows - rows.mean(axis=0)) ** 2).sum())
    curves = rows.shape[1]
    best: tuple[tuple[int, ...], float, float] = ((), math.inf, 0.0)
    for changes in range(min(most, len(rows) - 2) + 1):
        places = cut(rows, changes)
        squares = sum(float(part.var(axis=0).sum()) * len(part) for part in np.split(rows, places))
        criterion = _criterion(squares, total, rows.size, (changes + 1) * curves + changes)
        if criterion < best[1]:
            best = (places, criterion, 1 - squares / total if total > 0 else math.nan)
    drift = min(_criterion(_smooth(rows, power), total, rows.size, (power + 1) * curves) for power in (1, 2))
    return Phases(changes=best[0], criterion=best[1], drift=drift, explained=best[2])


@dataclass(frozen=True, eq=False)
class PhasesInResamples:
    """Phases of a curve, and how they hold when the texts are drawn anew.

    Attributes:
        found: of the curve itself.
        begins: with `low` and `high`, the places at which phases begin, one for each change.
        better: share of resamples in which phases, cut freely, describe the curve better than smooth drift.
    """

    found: Phases
    begins: Interval
    better: float


def phases_in_resamples(
    signal: Float[Array, "place curve"],
    draws: Float[Array, "draw place curve"],
    *,
    units: int,
    level: float = 0.95,
    most: int = 3,
) -> PhasesInResamples:
    """Phases of a curve with intervals: each resample is cut into as many for the ends, and freely for `better`.

    Args:
        signal: as in `phases`.
        draws: the same of resamples, standardised likewise.
        units: how many units were resampled.
        level: of the intervals.
        most: changes to consider.

    Source: ours; Efron & Tibshirani 1993, chapter 13, for the ends.
    """
    found = phases(signal, most=most)
    cuts = np.array([cut(one, len(found.changes)) for one in draws], dtype=np.float64)
    begins = interval_of_draws(
        np.array(found.changes, dtype=np.float64),
        cuts.reshape(len(draws), len(found.changes)),
        units=units,
        level=level,
    )
    better = [phases(one, most=most).better_than_drift for one in draws]
    return PhasesInResamples(found, begins, float(np.mean(better)) if better and units > 1 else math.nan)


def standardised(curves: Float[np.ndarray, "*batch place curve"]) -> Float[np.ndarray, "*batch place curve"]:
    """Each curve less its mean over places, over its spread; a level curve becomes 0."""
    centred = curves - curves.mean(axis=-2, keepdims=True)
    spread = centred.std(axis=-2, keepdims=True)
    # Numbers were measured in float32: a spread of its rounding is none.
    level = spread <= np.maximum(1e-4 * np.abs(curves).max(axis=-2, keepdims=True), 1e-6)
    return np.asarray(np.where(level, 0, divide(centred, np.where(level, 1, spread))))


def _squares_left(rows: Float[np.ndarray, "place curve"]) -> Float[np.ndarray, "start end"]:
    """Squares round its own level of every stretch of places, both ends included; infinite where start > end."""
    n = len(rows)
    left = np.full((n, n), np.inf)
    for start in range(n):
        count = np.arange(1, n - start + 1)[:, None]
        centred = rows[start:] - rows[start]  # short numbers: no digits lost to a large level
        sums, squares = centred.cumsum(axis=0), (centred**2).cumsum(axis=0)
        left[start, start:] = np.maximum(squares - sums**2 / count, 0).sum(axis=1)
    return left


def _smooth(rows: Float[np.ndarray, "place curve"], power: int) -> float:
    places = np.linspace(-1, 1, len(rows))
    columns = np.vander(places, power + 1)
    fitted = columns @ np.linalg.lstsq(columns, rows, rcond=None)[0]
    return float(((rows - fitted) ** 2).sum())


def _criterion(squares: float, total: float, numbers: int, estimated: int) -> float:
    floor = _NOTHING_LEFT * total if total > 0 else 1.0
    return numbers * math.log(max(squares, floor) / numbers) + estimated * math.log(numbers)
