"""Where in depth does something happen?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, divide, to_float64

_DECIMALS = 3


def centroid(weights: Float[Array, "*batch place"]) -> Float[np.ndarray, "*batch"]:
    """The mean place of a profile, weighted by its height: Σ place · weight / Σ weight.

    Args:
        weights: heights ≥ 0 over places 0, 1, 2, ...; places with NaN are left out.

    Returns:
        A place between 0 and the last one; NaN where all heights are 0 or missing.

    Source: definition.
    """
    heights = np.nan_to_num(to_float64(weights))
    if (heights < 0).any():
        raise ValueError("expected heights of at least 0")
    return np.asarray(divide(heights @ np.arange(heights.shape[-1], dtype=np.float64), heights.sum(axis=-1)))


def apart(
    one: Float[np.ndarray, "*batch"], other: Float[np.ndarray, "*batch"]
) -> Float[np.ndarray, "*batch"]:
    """How much deeper one place is than another, to a thousandth of a block.

    States in float32 do not tell places finer than that, and rounding all of them alike would look like a
    small but certain difference.

    Source: ours.
    """
    return np.asarray(np.round(np.asarray(one) - np.asarray(other), _DECIMALS) + 0.0)


def half_rise(curve: Float[Array, "*batch place"]) -> Float[np.ndarray, "*batch"]:
    """The first place at which a curve reaches half of its largest height, interpolated linearly.

    Returns:
        A place between 0 and the last one; NaN where the curve is nowhere above 0, or holds a NaN.

    Source: ours, for arrival curves.
    """
    heights = to_float64(curve)
    flat = heights.reshape(-1, heights.shape[-1])
    return np.array([_half_rise(row) for row in flat]).reshape(heights.shape[:-1])


def _half_rise(row: Float[np.ndarray, "place"]) -> float:
    if np.isnan(row).any() or row.max() <= 0:
        return float("nan")
    half = row.max() / 2
    after = int(np.argmax(row >= half))
    if after == 0:
        return 0.0
    before, here = row[after - 1], row[after]
    return after - 1 + float((half - before) / (here - before))


def last_above(curve: Float[Array, "*batch place"], level: float) -> Float[np.ndarray, "*batch"]:
    """The place from which on a curve stays below a level, interpolated linearly to the next known place.

    A place that holds exactly the level counts as above. Places with NaN are passed over.

    Returns:
        0 where the curve never reaches the level, its last known place where it ends at or above it; NaN
        where no place is known.

    Source: definition.
    """
    heights = to_float64(curve)
    flat = heights.reshape(-1, heights.shape[-1])
    places, known = np.arange(flat.shape[1], dtype=np.float64), ~np.isnan(flat)
    above = known & (np.nan_to_num(flat, nan=-np.inf) >= level)
    last = np.where(above.any(axis=1), flat.shape[1] - 1 - above[:, ::-1].argmax(axis=1), -1)
    later = known & (places > last[:, None])
    after = np.where(later.any(axis=1), later.argmax(axis=1), last)
    row = np.arange(len(flat))
    here, there = flat[row, last], flat[row, after]
    step = np.where(after > last, divide(here - level, here - there) * (after - last), 0.0)
    found = np.where(last < 0, 0.0, last + step)
    return np.asarray(np.where(known.any(axis=1), found, np.nan)).reshape(heights.shape[:-1])
