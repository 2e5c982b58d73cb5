"""Distances at fixed queries, as the head's mean pattern over texts has them: what positions alone give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import layer_coordinate, named, number_coordinate, samples, text_coordinate
from layerscope.experiments.attention_patterns.items import FixedMeansItem
from layerscope.experiments.attention_patterns.measure.heads import by_layer, side_by_side
from layerscope.experiments.attention_patterns.settings import Settings
from layerscope.maths.attention import DISTANCE_BINS, band_name

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.runs.attention_statistics import AttentionSums

FIXED_SUMS = "own_fixed_sums"


def means_at_fixed_queries(
    model: LayeredModel, item: FixedMeansItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """What each key gets of the fixed queries, summed over the texts of the item."""
    layers, columns = runs.fixed_columns(model, item.rows, item.fixed)
    return samples(
        named(
            by_layer(columns.float().cpu().numpy(), layers, model.n_layers, axis=0),
            "column_sum",
            "attention of fixed queries on each key, summed over texts",
            dims=("layer", "head", "fixed_column", "key"),
        ),
        named(len(item.rows), "column_texts", "texts summed over"),
        layer=layer_coordinate(model.n_layers),
        fixed_column=text_coordinate(runs.FIXED_SUMS, "fixed_column", "sum over fixed queries"),
        key=number_coordinate(range(item.fixed[1]), "key", "position of the key"),
    )


def own_fixed_sums(
    found: Sequence[AttentionSums], reaching: Sequence[bool], means: xr.Dataset | None, n_layers: int
) -> xr.Dataset:
    """What the mean pattern gives at the fixed queries, every passage weighting keys in its own way.

    Args:
        found: sums of the passages, which tell the weights of their keys.
        reaching: whether the passage has the fixed queries; the others count nothing.
        means: of the earlier stage; empty, or None, where there are no fixed queries.
        n_layers: of the model.
    """
    if means is None or "column_sum" not in means:
        return xr.Dataset()
    import torch

    columns = torch.as_tensor(side_by_side(means.column_sum.values) / float(means.column_texts))
    names = (
        "fixed",
        "fixed distance",
        *(band_name(first) for first, last in DISTANCE_BINS if last is not None),
    )
    tables = []
    for one, reaches in zip(found, reaching, strict=True):
        sums = runs.fixed_sums(columns.to(one.key_weights), one.key_weights)
        sums["fixed distance"] = sums["query position, fixed"] - sums["key position, fixed"]
        flat = torch.stack([sums[name] for name in names], dim=-1).double().cpu().numpy() * reaches
        tables.append(np.moveaxis(by_layer(flat, one.layers, n_layers, axis=2), 1, 0).astype(np.float32))
    return samples(
        named(
            np.concatenate(tables),
            FIXED_SUMS,
            "sums at fixed queries, the head's mean pattern",
            dims=("passage", "definition", "layer", "head", "fixed_sum"),
        ),
        named(int(means.column_texts), "fixed_texts", "texts that the mean pattern at fixed queries is of"),
        fixed_sum=text_coordinate(names, "fixed_sum", "sum over fixed queries and keys"),
    )
