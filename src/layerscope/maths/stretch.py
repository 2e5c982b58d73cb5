"""By how much must one model's layers be stretched for its curves to lie on another's?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, divide, to_float64

_FEWEST_PLACES = 3
_STEPS_PER_OCTAVE = 24
_TIED = 1e-9


def stretch(
    first: Float[Array, "*each curve place"],
    second: Float[Array, "*each curve place2"],
    weights: Float[Array, "curve"],
) -> Float[np.ndarray, "*each"]:
    """The factor a for which second(a x place) is most like first(place), over all curves together.

    Curves are read between places by straight lines. Likeness is Pearson's correlation over the places of the first
    whose stretched place exists in the second, weighted over curves; so neither level nor scale of a curve counts.
    At least half of the first's places must meet, and three of either. a is sought from 1/4 to 4, and from 1/4 to 4
    times the ratio of lengths, in steps of a 24th of an octave.

    Args:
        first: curves over consecutive places, which are numbered from 1: the ends of a model are left out. Before them,
            any number of draws, each of which gets its own factor.
        second: the same curves of another model, numbered likewise; another number of places.
        weights: of the curves, at least 0.

    Returns:
        1 where the curves agree place by place; where they agree by fraction of depth, the ratio of the models'
        numbers of layers. NaN where no factor lets enough places meet, or no curve varies.

    Source: ours.
    """
    one, other, weight = to_float64(first), to_float64(second), to_float64(weights)
    ratio = other.shape[-1] / one.shape[-1]
    octaves = np.arange(-2 * _STEPS_PER_OCTAVE, 2 * _STEPS_PER_OCTAVE + 1) / _STEPS_PER_OCTAVE
    factors = np.unique(np.concatenate([ratio * 2.0**octaves, 2.0**octaves]))
    likeness = np.stack([_likeness(one, other, weight, factor) for factor in factors])
    known = np.where(np.isnan(likeness), -np.inf, likeness)
    # A narrow peak is hit alike by neighbouring factors: their middle, on the scale of octaves, speaks for them.
    best = known >= known.max(axis=0) - _TIED
    ends = factors[best.argmax(axis=0)], factors[::-1][best[::-1].argmax(axis=0)]
    return np.where(np.isfinite(known).any(axis=0), np.exp(np.log(ends).mean(axis=0)), np.nan)


def _likeness(one: np.ndarray, other: np.ndarray, weight: np.ndarray, factor: float) -> np.ndarray:
    places = np.arange(1, one.shape[-1] + 1)
    at = factor * places
    meet = (at >= 1) & (at <= other.shape[-1])
    reached = np.ptp(at[meet]) + 1 if meet.any() else 0.0
    if meet.sum() < max(_FEWEST_PLACES, one.shape[-1] / 2) or reached < _FEWEST_PLACES:
        return np.full(one.shape[:-2], np.nan)
    alike = _correlation(one[..., meet], _between(other, at[meet]))
    return np.asarray(divide(np.nansum(alike * weight, axis=-1), (np.isfinite(alike) * weight).sum(axis=-1)))


def _between(curves: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Curves at places between 1 and their number, by straight lines."""
    left = np.minimum(at.astype(int), curves.shape[-1] - 1)
    return curves[..., left - 1] * (left + 1 - at) + curves[..., left] * (at - left)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's, over the last axis; NaN where a row does not vary."""
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    return np.asarray(divide((a * b).sum(axis=-1), np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))))
