"""From lengths to indices: profiles of direct reading, the four parts, and how much later far context is read."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import Over, along, cell_by_cell, measure, named
from layerscope.evidence.distances import cautions_of_unread, context_of_range
from layerscope.experiments.context_reading.settings import Settings
from layerscope.maths.arrays import divide
from layerscope.maths.depth_profile import apart, centroid
from layerscope.results.schema import write_json


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Profiles of direct reading by range, the four parts, their projections, and the index."""
    reading = stages["reading"]
    over = Over(reading, settings, rows="token_passage")
    largest = named(
        (reading.gap / reading.difference.max("layer")).max().astype(np.float64),
        "largest_gap",
        "largest gap of the split, over the largest difference of its token",
    )
    result = reading.merge(
        xr.merge([*_profiles(reading, over), *_indices(reading, over, settings), largest.to_dataset()])
    )
    result = result.assign_coords(over.coordinate).assign_attrs(passages=over.n)
    return write_json(result, cautions=[*_cautions(float(largest)), *cautions_of_unread(result)])


def _share_by_range(reading: xr.Dataset) -> xr.DataArray:
    """Where attention adds nothing there is no share of it, and no height."""
    return named(
        cell_by_cell(divide, reading.fresh_by_range, reading.attention),
        "fresh_share",
        "read directly, over the length of what attention adds",
    )


def _profiles(reading: xr.Dataset, over: Over) -> list[xr.Dataset]:
    """Direct reading by range, the lengths of the four parts, and what they have brought, layer by layer."""
    lengths = cell_by_cell(divide, reading.part_length, reading.attention)
    brought = along("layer", _summed, reading.projection)
    return [
        over.mean(_share_by_range(reading), draws=True),
        over.mean(named(lengths, "part_share", "length over that of what attention adds")),
        over.mean(named(brought, "brought", "share of the final difference brought so far")),
    ]


def _summed(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.cumsum(values, axis=-1))


def _indices(reading: xr.Dataset, over: Over, settings: Settings) -> list[xr.Dataset]:
    """Centroids of depth by range, and how much later the farthest range is read than the nearest."""
    by_length = along("layer", centroid, over.units(reading.fresh_by_range))
    by_share = along("layer", centroid, over.units(_share_by_range(reading)))
    centroids = named(
        by_share if settings.weight == "share" else by_length,
        "centroid",
        "centroid of depth of direct reading",
        "layer",
    )
    gap = named(_far_less_near(centroids), "far_less_near", "centroid, far less near", "layer")
    other = named(_far_less_near(by_length), "far_less_near_by_length", "the same by lengths", "layer")
    own = named(centroids, "passage_centroid", "centroid of depth of direct reading, of one passage")
    return [over.mean(centroids), over.paired(gap), over.paired(other), own.to_dataset()]


def _far_less_near(centroids: xr.DataArray) -> xr.DataArray:
    return cell_by_cell(apart, centroids.isel(range=-1, drop=True), centroids.isel(range=0, drop=True))


def _cautions(largest: float) -> list[str]:
    if largest < 1e-2:
        return []
    return [
        f"The four parts leave up to {largest:.1%} of a difference unexplained: rounding of half precision, or a model "
        "that does more in a layer than attention and MLP."
    ]


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """What each layer reads directly from the farthest and the nearest range."""
    ranges = [str(name) for name in result["range"].values]
    return {
        f"read_directly_{where}": measure(
            result,
            "fresh_share",
            label=f"direct reading, {where} context",
            sense=f"attention adds much that it reads directly from {context_of_range(name)}",
            questions="context",
            range=name,
        )
        for where, name in (("far", ranges[-1]), ("near", ranges[0]))
    }
