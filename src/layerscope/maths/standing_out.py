"""Which places of a curve differ from its other places, by more than the texts and by more than chance?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from layerscope.maths.arrays import Array, divide, to_float64
from layerscope.maths.bootstrap import FEWEST_UNITS


def from_the_others(curve: Float[Array, "*batch place"]) -> Float[np.ndarray, "*batch place"]:
    """Each place's value less the mean of the other places' values.

    Args:
        curve: values over places; a place with NaN is left out of the others' mean.

    Returns:
        NaN where the place is unknown, or no other is known.

    Source: definition; n / (n − 1) times the deviation from the mean of all n places.
    """
    values = to_float64(curve)
    known = np.isfinite(values)
    others = known.sum(axis=-1, keepdims=True) - known
    rest = np.where(known, values, 0).sum(axis=-1, keepdims=True) - np.where(known, values, 0)
    return np.asarray(values - divide(rest, others))


def sds_from_the_others(curve: Float[Array, "*batch place"]) -> Float[np.ndarray, "*batch place"]:
    """How many standard deviations of the other places each place lies from their mean.

    Args:
        curve: as in `from_the_others`.

    Returns:
        Signed; NaN where fewer than two others are known, or they do not vary and the place is like them; infinite
        where they do not vary and it is not.

    Source: definition; the externally standardised distance of an outlier, Barnett & Lewis 1994, chapter 6.
    """
    values, apart = to_float64(curve), from_the_others(curve)
    n = values.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.stack([_spread(np.delete(values, place, axis=-1)) for place in range(n)], axis=-1)
        return np.asarray(apart / spread)


def _spread(values: Float[np.ndarray, "*batch place"]) -> Float[np.ndarray, "*batch"]:
    """Standard deviation over the known places; NaN of fewer than two."""
    known = np.isfinite(values)
    n = known.sum(axis=-1)
    mean = divide(np.where(known, values, 0).sum(axis=-1), n)
    squares = np.where(known, (values - mean[..., None]) ** 2, 0).sum(axis=-1)
    return np.asarray(np.sqrt(divide(squares, np.maximum(n - 1, 0))))


def p_by_resamples(
    values: Float[np.ndarray, "*cell"],
    draws: Float[np.ndarray, "draw *cell"],
    *,
    units: float | Float[np.ndarray, "*cell"] | Int[np.ndarray, "*cell"],
    nothing: float | Float[np.ndarray, "*cell"] = 0.0,
) -> Float[np.ndarray, "*cell"]:
    """Two-sided p of each value by the spread of its resamples, for that cell alone.

    t = (value − nothing) / (SE √(n / (n − 1))), by Student's distribution with n − 1 degrees of freedom: a p counted
    from 200 resamples is never below 1 / 201, too coarse to correct for some hundred cells, and a t has a tail.

    Args:
        values: the numbers.
        draws: their resamples, of whole units.
        units: how many units each rests on.
        nothing: the value that means no effect.

    Returns:
        In [0, 1]; NaN where a value or its resamples are unknown, or rest on fewer than FEWEST_UNITS units. Where
        resamples have no spread, 1 / (1 + resamples) if the value is not `nothing`, else 1: no more can be said.

    Source: Efron & Tibshirani 1993, chapter 12, the bootstrap's standard error; `simultaneous.largest_t_p` for the
    correction of n.
    """
    from scipy.special import stdtr

    n = np.broadcast_to(np.asarray(units, dtype=float), np.shape(values))
    apart = np.abs(np.asarray(values, dtype=float) - nothing)
    error = _spread(np.moveaxis(np.asarray(draws, dtype=float), 0, -1))
    level = error <= 1e-12 * np.maximum(np.abs(values), 1e-300)  # rounding of equal resamples is no spread
    t = divide(apart, np.where(level, 0.0, error) * np.sqrt(n / np.maximum(n - 1, 1)))
    certain = np.where(apart > 0, 1 / (1 + len(draws)), 1.0)
    p = np.where(level, certain, 2 * stdtr(np.maximum(n - 1, 1), -t))
    return np.asarray(np.where(np.isfinite(values) & np.isfinite(error) & (n >= FEWEST_UNITS), p, np.nan))
