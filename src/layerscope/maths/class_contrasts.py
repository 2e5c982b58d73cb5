"""Directions along which states of two classes differ, other things being equal."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from layerscope.maths.arrays import divide


def contrast_within_cells(
    states: Float[np.ndarray, "case width"],
    *,
    labels: Int[np.ndarray, "case"],
    cells: Int[np.ndarray, "case"],
    first: int,
    second: int,
) -> Float[np.ndarray, "width"]:
    """mean of `second` − mean of `first` within each cell, averaged over the cells that hold both.

    A cell weighs n₁ n₂ / (n₁ + n₂), as in the regression of a state on its label with a constant for each
    cell: what differs between cells (absolute position) does not enter.

    Args:
        states: one row per case.
        labels: the class of each case.
        cells: what is held equal.
        first: the class that the direction leads away from.
        second: the class that it leads to.

    Returns:
        A vector in the units of the states; NaN where no cell holds both classes.

    Source: two-way analysis of variance; the within (fixed-effects) estimator.
    """
    total, weight = np.zeros(states.shape[1]), 0.0
    for cell in np.unique(cells):
        a, b = (states[(cells == cell) & (labels == label)].astype(np.float64) for label in (first, second))
        if len(a) and len(b):
            w = len(a) * len(b) / (len(a) + len(b))
            total += w * (b.mean(axis=0) - a.mean(axis=0))
            weight += w
    return np.asarray(divide(total, np.full(1, weight)))


def attended_index(shares: Float[np.ndarray, "*batch unit"]) -> Float[np.ndarray, "*batch"]:
    """Mean index of the units that are attended to, each weighing its share; NaN where all shares are 0.

    Shares are taken among the given units only, so that a sink elsewhere does not enter.
    """
    index = np.arange(shares.shape[-1])
    return np.asarray(divide((shares * index).sum(axis=-1), shares.sum(axis=-1)))
