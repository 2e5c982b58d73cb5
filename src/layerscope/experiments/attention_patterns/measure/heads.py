"""Heads of all layers side by side, and parted into layers again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def heads_of(layers: Sequence[int]) -> int:
    """The most heads that any layer has."""
    return max((list(layers).count(layer) for layer in set(layers)), default=1)


def by_layer(values: np.ndarray, layers: Sequence[int], n_layers: int, *, axis: int) -> np.ndarray:
    """Heads side by side, parted into layer and head; NaN where a layer has no (such) head."""
    moved = np.moveaxis(values, axis, 0)
    result = np.full((n_layers, heads_of(layers), *moved.shape[1:]), np.nan, dtype=values.dtype)
    for layer in set(layers):
        own = moved[np.asarray(layers) == layer]
        result[layer, : len(own)] = own
    return np.moveaxis(result, [0, 1], [axis, axis + 1])


def side_by_side(values: np.ndarray) -> np.ndarray:
    """[layer head ...] as [head ...], the heads of all layers side by side; those that are not there left out."""
    flat = values.reshape(-1, *values.shape[2:])
    return np.asarray(flat[~np.isnan(flat.reshape(len(flat), -1)[:, 0])])
