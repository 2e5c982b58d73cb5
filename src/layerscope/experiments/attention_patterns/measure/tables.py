"""Named sums over queries and keys as tables [text definition layer head sum]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.evidence import layer_coordinate, text_coordinate
from layerscope.experiments.attention_patterns.items import KINDS
from layerscope.experiments.attention_patterns.measure.heads import by_layer, side_by_side
from layerscope.maths.attention import DEFINITIONS, DISTANCE_BINS, OFFSETS, band_name

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

QUERIES = "queries"
_EVERYWHERE = (
    QUERIES, "every", "first token", "self", "previous token", "distance", "entropy", "span", "entropy queries",
    "duplicate token", "with duplicate", "induction", "with induction",
)  # fmt: skip
SUMS = (
    *_EVERYWHERE, "fixed", "fixed distance", "distance from 11", "distance from 51",
    *(f"offset {offset}" for offset in range(OFFSETS)),
)  # fmt: skip
"""Sums of a whole text."""

BIN_SUMS = tuple(band_name(first) for first, _ in DISTANCE_BINS)
CORNER_SUMS = (*_EVERYWHERE, "deviation", *BIN_SUMS)
"""Sums among the first tokens."""

CORNERS = {
    "corner": "the model's attention",
    "own_mean": "the head's mean pattern",
    "uniform_corner": "uniform attention",
}
"""Whose sums among the first tokens there are."""

_DISTANCES = {
    "distance": ("query position", "every"),
    "fixed distance": ("query position, fixed", "fixed"),
}
"""Distances are positions of queries less those of keys."""


def table(sums: Mapping[str, Any], wanted: Sequence[str], layers: Sequence[int], n_layers: int) -> np.ndarray:
    """Named sums [text definition layer head sum]."""
    return parted(np.stack([one_sum(sums, name) for name in wanted], axis=-1), layers, n_layers)


def parted(flat: np.ndarray, layers: Sequence[int], n_layers: int) -> np.ndarray:
    """[definition text head sum] as [text definition layer head sum]."""
    return np.moveaxis(by_layer(flat, layers, n_layers, axis=2), 1, 0).astype(np.float32)


def one_sum(sums: Mapping[str, Any], name: str) -> np.ndarray:
    """One sum [definition text head]."""
    if name in _DISTANCES:
        query, total = _DISTANCES[name]
        return one_sum(sums, query) - one_sum(sums, f"key position, {total}")
    known = sums.get(name)  # a bin that the first tokens do not reach is empty; nulls deviate from nothing
    return np.asarray((sums["every"] * 0 if known is None else known).double().cpu().numpy())


def definition_and_layer(model: LayeredModel) -> dict[str, xr.Variable]:
    """The coordinates of every table."""
    return {
        "definition": text_coordinate(DEFINITIONS, "definition", "attention that counts"),
        "layer": layer_coordinate(model.n_layers),
    }


def mean_pattern(means: xr.Dataset, kind: str) -> np.ndarray:
    """The mean pattern of first tokens over texts of a kind [head query key], heads side by side."""
    here = KINDS.index(kind)
    total, texts = means.pattern_sum.values[here], means.pattern_texts.values[here]
    return side_by_side(total / np.maximum(texts, 1)[:, None]).astype(np.float32)
