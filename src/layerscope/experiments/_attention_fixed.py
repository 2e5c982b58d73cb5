"""Distances at fixed queries, as the head's mean pattern over texts has them: what positions alone give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.evidence.batches import in_batches
from layerscope.evidence.coordinates import layer_coordinate, number_coordinate, text_coordinate
from layerscope.experiments._attention_heads import by_layer, side_by_side
from layerscope.experiments._attention_items import fixed_queries
from layerscope.experiments._attention_ratios import STATISTICS, sum_of, zero_where_absent
from layerscope.experiments._attention_settings import Settings
from layerscope.maths.attention import DISTANCE_BINS, band_name
from layerscope.maths.ratios import known_mean, ratio
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

_SUMS = "own_fixed_sums"


class FixedMeansItem(WorkItem):
    """Beginnings of some passages, as far as the fixed queries reach."""

    rows: tuple[tuple[int, ...], ...]
    fixed: tuple[int, int]


def fixed_mean_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[FixedMeansItem]:
    """Passages that have the fixed queries, evenly spread over all of them, in batches."""
    fixed = fixed_queries(inputs, settings)
    if fixed is None or not settings.fixed_texts:
        return
    rows = [p.tokens.ids[: fixed[1]] for p in inputs.passages if len(p.tokens) >= fixed[1]]
    count = min(settings.fixed_texts, len(rows))
    chosen = [rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]
    for batch in in_batches(chosen, inputs.tokens_per_pass, length=len):
        yield FixedMeansItem(
            name=f"fixed queries of {len(batch)} passages",
            size=sum(map(len, batch)),
            rows=tuple(batch),
            fixed=fixed,
        )


def measure_fixed_means(
    model: LayeredModel, item: FixedMeansItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """What each key gets of the fixed queries, summed over the texts of the item."""
    layers, columns = runs.fixed_columns(model, item.rows, item.fixed)
    return xr.Dataset(
        {
            "column_sum": quantity(
                by_layer(columns.float().cpu().numpy(), layers, model.n_layers, axis=0),
                "layer head fixed_column key",
                "attention of fixed queries on each key, summed over texts",
            ),
            "column_texts": quantity(len(item.rows), "", "texts summed over"),
        },
        coords={
            "layer": layer_coordinate(model.n_layers),
            "fixed_column": text_coordinate(runs.FIXED_SUMS, "fixed_column", "sum over fixed queries"),
            "key": number_coordinate(range(item.fixed[1]), "key", "position of the key"),
        },
    )


def add_columns(so_far: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    """Two parts of the sum over texts."""
    return so_far.assign(
        {
            name: so_far[name].copy(data=so_far[name].values + part[name].values)
            for name in ("column_sum", "column_texts")
        }
    )


def own_fixed_sums(
    found: Sequence[Any], reaching: Sequence[bool], means: xr.Dataset | None, n_layers: int
) -> dict[str, xr.Variable]:
    """What the mean pattern gives at the fixed queries, every passage weighting keys in its own way.

    Args:
        found: sums of the passages, which tell the weights of their keys.
        reaching: whether the passage has the fixed queries; the others count nothing.
        means: of the earlier stage; empty, or None, where there are no fixed queries.
        n_layers: of the model.
    """
    if means is None or "column_sum" not in means:
        return {}
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
    return {
        _SUMS: quantity(
            np.concatenate(tables),
            "passage definition layer head fixed_sum",
            "sums at fixed queries, the head's mean pattern",
        ),
        "fixed_sum": text_coordinate(names, "fixed_sum", "sum over fixed queries and keys"),
        "fixed_texts": quantity(
            int(means.column_texts), "", "texts that the mean pattern at fixed queries is of"
        ),
    }


def own_mean_distances(passages: xr.Dataset) -> dict[str, Any]:
    """Mean distance and mass in each bin at fixed queries, of the head's mean pattern."""
    if _SUMS not in passages:
        return {}
    sums = passages[_SUMS]
    total = zero_where_absent(sum_of(sums, "fixed"))
    near = [
        zero_where_absent(sum_of(sums, band_name(first))) for first, last in DISTANCE_BINS if last is not None
    ]
    bins = np.stack([*near, np.maximum(total - np.sum(near, axis=0), 0)], axis=1)
    share = known_mean(ratio(bins, np.broadcast_to(total[:, None], bins.shape)))
    distance = known_mean(ratio(zero_where_absent(sum_of(sums, "fixed distance")), total))
    statistic, whose = STATISTICS["fixed_distance"], "head's mean pattern"
    return {
        "own_mean_fixed_distance": quantity(
            distance, "definition layer", f"{statistic.long_name}, {whose}", statistic.units
        ),
        "own_mean_bin_share": quantity(
            share, "distance_bin definition layer", f"share by distance at fixed queries, {whose}"
        ),
    }
