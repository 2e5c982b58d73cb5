"""What context_reading shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_curve, text_coordinate
from layerscope.evidence.distances import context_of_range
from layerscope.experiments.context_reading.measure import SAID
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.distribution import distribution
from layerscope.plots.theme import leading

_SHORTEST = 0.001
"""Length of a part, over that of what attention adds, below which it is as good as nothing."""


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by name."""
    figures = {
        "What each layer reads from each distance": _by_range(result),
        "In which layers is each distance read?": _centroids(result),
    }
    for cut in map(int, result.cut_at.values):
        figures[f"Who brings context ≥ {cut} tokens back?"] = _parts(result, cut)
        figures[f"Brought so far, context ≥ {cut} tokens back"] = _brought(result, cut)
    return leading(figures, list(figures)[:3])


def _ranges(result: xr.Dataset) -> xr.Variable:
    names = [context_of_range(str(name)).removeprefix("context ") for name in result["range"].values]
    return text_coordinate(names, "range", "range of distances")


def _said(result: xr.Dataset) -> xr.Variable:
    return text_coordinate([SAID[str(part)] for part in result.part.values], "part", "part of the growth")


def _by_range(result: xr.Dataset) -> Any:
    curve = as_curve(result, "fresh_share").assign_coords(range=_ranges(result))
    return curve_over_depth(
        curve,
        caption="Read directly from one range of distances, over the length of what attention adds: mean over "
        f"{result.attrs['passages']} passages, bootstrap bands.",
    )


def _centroids(result: xr.Dataset) -> Any:
    ranges, passages = [str(name) for name in _ranges(result).values], list(map(str, result.passage.values))
    points = result.passage_centroid.transpose("range", "passage").stack(point=("range", "passage"))
    means = as_curve(result, "centroid").assign_coords(range=_ranges(result))
    return distribution(
        points.reset_index("point", drop=True),
        list(np.repeat(ranges, len(passages))),
        means,
        names=passages * len(ranges),
        caption="Each point is a passage: the mean layer at which it is read, weighted by how much. "
        "Farther right: later.",
    )


def _parts(result: xr.Dataset, cut: int) -> Any:
    curve = as_curve(result, "part_share").sel(cut_at=cut, drop=True)
    # Logarithmic: where a layer's attention hardly adds anything, a part can be ten times as long. No part that is
    # exactly zero, as relayed and own are in the first layer, has a place there.
    shown = curve.map(lambda values: values.clip(min=_SHORTEST)).assign_coords(part=_said(result))
    shown["value"].attrs = dict(result.part_share.attrs)
    return curve_over_depth(
        shown,
        log=True,
        caption="Length of each part of the difference's growth, over that of what attention adds. Direct reading and "
        f"relaying bring context; the other two work on what is there. Drawn at {_SHORTEST:g} where below.",
    )


def _brought(result: xr.Dataset, cut: int) -> Any:
    curve = as_curve(result, "brought").sel(cut_at=cut, drop=True).assign_coords(part=_said(result))
    return curve_over_depth(
        curve,
        caption="Each part along the final difference, summed up to this layer; at the last layer the four sum to one.",
    )
