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

_READ, _PLACES = "What each layer reads from each distance", "In which layers is each distance read?"
_SHORTEST = 0.001
"""Length of a part, over that of what attention adds, below which it is as good as nothing."""


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by name."""
    figures = {_READ: _by_range(result), _PLACES: _centroids(result)}
    for cut in map(int, result.cut_at.values):
        brought = f"Brought so far, context ≥ {cut} tokens back"
        figures[brought] = _brought(result, cut)
        figures[f"Who brings context ≥ {cut} tokens back?"] = _parts(result, cut)
    return leading(figures, (_READ, _PLACES, brought))


def _ranges(result: xr.Dataset) -> xr.Variable:
    names = [context_of_range(str(name)).removeprefix("context ") for name in result["range"].values]
    return text_coordinate(names, "range", "range of distances")


def _said(result: xr.Dataset) -> xr.Variable:
    return text_coordinate([SAID[str(part)] for part in result.part.values], "part", "part of the growth")


def _by_range(result: xr.Dataset) -> Any:
    curve = as_curve(result, "fresh_share").assign_coords(range=_ranges(result))
    return curve_over_depth(
        curve,
        caption=f"Mean over {result.attrs['passages']} passages, bootstrap bands. Look for the layers in which far "
        "context comes in.",
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
        caption="Each point is a passage: the mean layer at which a range is read, weighted by how much.",
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
        caption="Direct reading and relaying bring context; the other two work on what is there. Drawn at "
        f"{_SHORTEST:g} where below.",
    )


def _brought(result: xr.Dataset, cut: int) -> Any:
    curve = as_curve(result, "brought").sel(cut_at=cut, drop=True).assign_coords(part=_said(result))
    return curve_over_depth(
        curve,
        caption="What this context changes in the final state, summed up to each layer; in the end the four sum to 1.",
    )
