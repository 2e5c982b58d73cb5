"""Curves over layers, and where they change together."""

from __future__ import annotations

import math

import xarray as xr
from plotly.graph_objects import Figure

from layerscope.plots.curves import curve_over_depth
from layerscope.plots.theme import NEUTRAL


def curves_with_phases(
    curves: xr.Dataset, begins: xr.Dataset, *, title: str = "", caption: str = ""
) -> Figure:
    """Lines over layers, with a vertical line and a shaded interval between two phases.

    Args:
        curves: `value` over layer and one dimension more, whose labels name the lines.
        begins: `value`, `low`, `high` over one dimension: layers at which a phase begins. The line stands
            between that layer and the one before it.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.
    """
    figure = curve_over_depth(curves, title=title, caption=caption)
    for at, low, high in zip(*(begins[name].values for name in ("value", "low", "high")), strict=True):
        if math.isfinite(low) and math.isfinite(high):
            figure.add_vrect(
                float(low) - 0.5,
                float(high) - 0.5 + 1e-9,
                fillcolor=NEUTRAL,
                opacity=0.16,
                line_width=0,
                layer="below",
            )
        figure.add_vline(float(at) - 0.5, line={"color": NEUTRAL, "width": 1.5, "dash": "dot"})
    return figure
