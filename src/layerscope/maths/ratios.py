"""Ratios of sums over units, with intervals by resampling whole units.

Where each unit contributes to both a sum above and a sum below, the ratio of the sums weighs units by what
they hold; the mean of the units' own ratios would let a unit with nearly nothing below count as much as any.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, divide, to_float64
from layerscope.maths.bootstrap import Interval, interval_of_draws, resampled_counts

_AT_ONCE = 4_000_000  # numbers held at one time: 32 MB


def ratio(above: Float[Array, "unit *rest"], below: Float[Array, "unit *rest"]) -> Float[np.ndarray, "*rest"]:
    """Σ above / Σ below over units; NaN where nothing lies below.

    Source: definition.
    """
    return np.asarray(divide(to_float64(above).sum(axis=0), to_float64(below).sum(axis=0)))


def share(
    above: Float[np.ndarray, "*all"] | np.floating, below: Float[np.ndarray, "*all"] | np.floating
) -> Float[np.ndarray, "*all"]:
    """above / below; NaN where below is not positive: nothing there, or losses that cancel.

    Source: definition.
    """
    return np.asarray(divide(above, np.where(below > 0, below, 0)), dtype=np.float64)


def bootstrap_ratio(
    above: Float[Array, "unit *rest"],
    below: Float[Array, "unit *rest"],
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 2000,
    mean_of_last: bool = False,
) -> Interval:
    """Σ above / Σ below over units with a bootstrap interval, for every cell of the rest.

    Args:
        above: one row per passage or document.
        below: likewise; both 0 where a unit does not take part.
        seed: the same seed gives the same interval; all cells meet the same draws.
        level: of the interval, in (0, 1); per cell.
        resamples: draws of the units.
        mean_of_last: whether cells are means of the ratios along the last axis (heads of a layer), those
            without a ratio left out.

    Returns:
        An `Interval`, n being the units with anything below in the cell.

    Source: Efron & Tibshirani 1993, chapter 13.
    """
    up, down = to_float64(above), to_float64(below)
    units, rest = len(up), up.shape[1:]
    value, n = ratio(up, down), np.asarray((down != 0).sum(axis=0))
    if mean_of_last:
        value, n, rest = known_mean(value), np.asarray(n.max(axis=-1)), rest[:-1]
    width = up.shape[-1] if mean_of_last else 1
    unknown = np.full(value.shape, np.nan)
    if units < 2:  # no interval, and nothing to be drawn for one
        return Interval(value, unknown, unknown.copy(), n)
    counts = resampled_counts(units, seed=seed, resamples=resamples)
    up, down = (part.reshape(units, -1, width) for part in (up, down))
    low, high = (np.full(up.shape[1], np.nan) for _ in range(2))
    for cells in _slices(up.shape[1], width=resamples * width):
        flat = known_mean(ratio_draws(up[:, cells], down[:, cells], counts))
        interval = interval_of_draws(flat.mean(axis=0), flat, units=units, level=level)
        low[cells], high[cells] = interval.low, interval.high
    return Interval(value, low.reshape(rest), high.reshape(rest), n)


def ratio_draws(
    above: Float[Array, "unit *rest"],
    below: Float[Array, "unit *rest"],
    counts: Float[np.ndarray, "draw unit"],
) -> Float[np.ndarray, "draw *rest"]:
    """Σ above / Σ below in each resample of the units; NaN where nothing lies below.

    Args:
        above, below: as in `bootstrap_ratio`.
        counts: how often each unit was drawn (`resampled_counts`).
    """
    up, down = (np.tensordot(counts, to_float64(part), axes=1) for part in (above, below))
    return np.asarray(divide(up, down))


def known_mean(values: Float[np.ndarray, "*all"], axis: int = -1) -> Float[np.ndarray, "*rest"]:
    """Mean along an axis of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    return np.asarray(divide(np.where(known, values, 0).sum(axis=axis), known.sum(axis=axis)))


def _slices(length: int, *, width: int) -> Iterator[slice]:
    size = max(1, _AT_ONCE // width)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
