"""Places in words: layers, depths, heads, each written in one way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr


def head_name(layer: int, head: int) -> str:
    """A head as the field writes it: L7H3, both counted from 0."""
    return f"L{int(layer)}H{int(head)}"


def at_depths(depths: Sequence[int]) -> str:
    """Depths in words: "at depth 3", "at depths 0 and 1", "at depths 2 to 6 and 11"."""
    return f"at {places_in_words(depths, 'depth')}"


def places_in_words(places: Sequence[int] | np.ndarray, unit: str) -> str:
    """Depths or layers with their unit: "layer 3", "layers 0 and 1", "layers 2 to 6 and 11", "no layer"."""
    if not len(places):
        return f"no {unit}"
    runs = np.split(np.asarray(places), np.flatnonzero(np.diff(places) > 1) + 1)
    if len(runs) == 1 and len(places) == 2:
        return f"{unit}s {places[0]} and {places[1]}"
    said = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    listed = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return f"{unit}{'s' * (len(places) > 1)} {listed}"


def largest_first(values: xr.DataArray) -> list[str]:
    """Labels along the one dimension, the largest value's first, those without a value last."""
    order = np.argsort(-np.nan_to_num(values.to_numpy(), nan=-np.inf), kind="stable")
    return [str(name) for name in values[values.dims[0]].to_numpy()[order]]
