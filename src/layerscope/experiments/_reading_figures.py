"""What context_reading shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments._summaries import as_curve
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.distribution import distribution

_SHORTEST = 0.001
"""Length of a part, over that of what attention adds, below which it is as good as nothing."""


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by name."""
    figures = {
        "what each layer reads from each distance": _by_range(result),
        "where in depth each distance is read": _centroids(result),
    }
    for cut in result.cut_at.values:
        figures[f"who brings what lies beyond the last {cut} tokens"] = _parts(result, int(cut))
        figures[f"brought so far, beyond the last {cut} tokens"] = _brought(result, int(cut))
    return figures


def _by_range(result: xr.Dataset) -> Any:
    curve = as_curve(result, "fresh_share").assign_coords(range=result["range"])
    return curve_over_depth(
        curve,
        caption="Fresh reading of one range of distances, over the length of what attention adds. Mean over passages, "
        "with intervals.",
    )


def _centroids(result: xr.Dataset) -> Any:
    ranges = [str(name) for name in result["range"].values]
    passages = [str(name) for name in result.passage.values]
    values = result.passage_centroid.values.T.reshape(-1)
    groups = list(np.repeat(ranges, len(passages)))
    points = xr.DataArray(values, dims="point", attrs=result.passage_centroid.attrs)
    means = as_curve(result, "centroid").assign_coords(range=result["range"])
    return distribution(
        points,
        groups,
        means,
        names=passages * len(ranges),
        caption="Each point is a passage: the mean layer at which it is read, weighted by how much. "
        "Farther right: deeper.",
    )


def _parts(result: xr.Dataset, cut: int) -> Any:
    curve = as_curve(result, "part_share").sel(cut_at=cut, drop=True)
    # Logarithmic: where a block's attention hardly adds anything, a part can be ten times as long. No part that is
    # exactly zero, as relayed and own are in the first block, has a place there.
    shown = curve.map(lambda values: values.clip(min=_SHORTEST)).assign_coords(part=result.part)
    shown["value"].attrs = dict(result.part_share.attrs)
    return curve_over_depth(
        shown,
        log=True,
        caption="Length of each part of the difference's growth, over that of what attention adds. Fresh and relayed "
        f"bring far context; own and MLP carry and amplify it. Below {_SHORTEST:g} a part is drawn there.",
    )


def _brought(result: xr.Dataset, cut: int) -> Any:
    curve = as_curve(result, "brought").sel(cut_at=cut, drop=True).assign_coords(part=result.part)
    return curve_over_depth(
        curve,
        caption="Each part along the final difference, summed up to this layer. At the last layer the four sum to one.",
    )
