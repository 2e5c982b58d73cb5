"""Distances at queries that stand equally deep in all texts: by bin, one by one, and of positions alone."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence import Over, Resampled, cell_by_cell, named
from layerscope.experiments.attention_patterns.conclude.ratios import (
    NULLS,
    STATISTICS,
    over_heads,
    ratio_of,
    sum_of,
)
from layerscope.experiments.attention_patterns.measure.fixed_queries import FIXED_SUMS
from layerscope.maths.arrays import divide
from layerscope.maths.attention import DISTANCE_BINS, OFFSETS, band_name
from layerscope.maths.bootstrap import resampled_counts
from layerscope.maths.ratios import ratio_draws

_ROUNDING = 1e-5
_MAJORITY = 0.5


def distances(passages: xr.Dataset, over: Over) -> list[xr.Dataset]:
    """Mass at each distance and in each bin, at queries that stand equally deep in all texts."""
    model, uniform = passages.model_sums, passages.uniform_sums
    total, every = sum_of(model, "fixed"), "share of attention by distance at fixed queries"
    null = over_heads(
        "uniform_bin_share",
        _binned(uniform),
        sum_of(uniform, "fixed"),
        over.unit,
        "share by distance at fixed queries, uniform attention",
    )
    shares = over.ratio(named(_binned(model), "bin_share", every), total, mean_over="head")
    # A distance that uniform attention does not reach, but for rounding, lies beyond the layer's window.
    seen = null.uniform_bin_share.isel(definition=0, drop=True) > _ROUNDING
    inside = shares.where(seen).assign(bin_share_n=shares.bin_share_n)
    offsets = xr.concat([sum_of(model, f"offset {offset}") for offset in range(OFFSETS)], dim="offset")
    by_offset = ratio_of(offsets, total, over.unit).transpose("offset", ...)
    return [
        inside,
        null,
        named(by_offset, "head_offset_share", "share of attention at one distance").to_dataset(),
        _fixed_offset(offsets.isel(definition=0, drop=True), total.isel(definition=0, drop=True), over),
        *_of_positions_alone(passages, over),
    ]


def _binned(sums: xr.DataArray) -> xr.DataArray:
    """Mass in each distance bin at fixed queries [distance_bin unit definition layer head]."""
    bins: list[xr.DataArray] = []
    for first, last in DISTANCE_BINS:
        if last is None:
            bins.append(_rest(sum_of(sums, "fixed"), bins))
        elif last < OFFSETS:
            near = [sum_of(sums, f"offset {offset}") for offset in range(first, last + 1)]
            bins.append(xr.concat(near, dim="offset").sum("offset", skipna=False))
        else:
            bins.append(sum_of(sums, band_name(first)))
    return xr.concat(bins, dim="distance_bin")


def _rest(total: xr.DataArray, nearer: list[xr.DataArray]) -> xr.DataArray:
    return (total - xr.concat(nearer, dim="distance_bin").sum("distance_bin", skipna=False)).clip(min=0)


def _fixed_offset(offsets: xr.DataArray, total: xr.DataArray, over: Over) -> xr.Dataset:
    """The one distance that takes more than half of a head's attention, over fixed queries; else NaN."""
    up = offsets.transpose(over.unit, "offset", ...)
    down = total.broadcast_like(up).transpose(*up.dims)
    counts = resampled_counts(over.n, seed=over.settings.seed, resamples=over.settings.resamples)
    whole = ratio_of(up, down, over.unit).transpose("offset", ...)
    like = whole.isel(offset=0, drop=True)
    value = named(
        like.copy(data=majority(whole.values[None])[0]),
        "fixed_offset",
        "distance that takes over half of a head's attention",
        "tokens",
    )
    draws = xr.DataArray(majority(ratio_draws(up.values, down.values, counts)), dims=("draw", *like.dims))
    return over.quantity(Resampled(value, draws, xr.full_like(value, over.n, dtype=np.int64)))


def majority(shares: np.ndarray) -> np.ndarray:
    """Place along axis 1 with a share above one half, NaN where there is none."""
    best = np.nan_to_num(shares).argmax(axis=1).astype(float)
    return np.where(np.nan_to_num(shares).max(axis=1) > _MAJORITY, best, np.nan)


def _of_positions_alone(passages: xr.Dataset, over: Over) -> list[xr.Dataset]:
    """Mean distance and mass in each bin at fixed queries, of the head's mean pattern."""
    if FIXED_SUMS not in passages:
        return []
    sums, whose = passages[FIXED_SUMS], NULLS["own_mean"]
    total = sum_of(sums, "fixed")
    near = [sum_of(sums, band_name(first)) for first, last in DISTANCE_BINS if last is not None]
    bins = xr.concat([*near, _rest(total, near)], dim="distance_bin")
    far, statistic = sum_of(sums, "fixed distance"), STATISTICS["fixed_distance"]
    long_name = f"{statistic.long_name}, {whose}"
    return [
        over_heads("own_mean_fixed_distance", far, total, over.unit, long_name, statistic.units),
        over_heads(
            "own_mean_bin_share", bins, total, over.unit, f"share by distance at fixed queries, {whose}"
        ),
    ]


def passage_shares(passages: xr.Dataset) -> xr.Dataset:
    """Each passage's share of attention on the first token [passage definition layer head]."""
    share = cell_by_cell(
        divide, sum_of(passages.model_sums, "first token"), sum_of(passages.model_sums, "every")
    )
    long_name = "share of attention on the first token, by passage"
    return named(share, "passage_first_token_share", long_name).to_dataset()
