"""One measure of several models on the fraction of depth: a line with its band for each."""

from __future__ import annotations

from itertools import cycle

import xarray as xr
from plotly.graph_objects import Figure

from layerscope.plots.axes import label
from layerscope.plots.bands import band, line
from layerscope.plots.curves import lines
from layerscope.plots.theme import COLOURS, finish, legend_above

_HEIGHT = 240


def curves_by_model(values: xr.Dataset, *, title: str = "", caption: str = "") -> Figure:
    """Lines over the fraction of depth.

    Args:
        values: `value`, and where known `low`, `high` [model fraction]; its name stands above the figure, or wherever a
            page puts titles, and so not along the axis.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.
    """
    figure = Figure()
    for (name, one), colour in zip(lines(values, "fraction"), cycle(COLOURS), strict=False):
        known = one.dropna("fraction", subset=["value"])
        area = band(known, "fraction", colour=colour, legendgroup=name)
        if area is not None:
            figure.add_trace(area)
        figure.add_trace(line(known, "fraction", name=label(name), colour=colour, legendgroup=name))
    figure.update_xaxes(title="fraction of depth", range=[0, 1])
    unit = values["value"].attrs.get("units", "1")
    figure.update_yaxes(title="" if unit == "1" else f"[{unit}]")
    figure.update_layout(hovermode="x unified", legend=legend_above())
    return finish(figure, title=title, caption=caption, height=_HEIGHT)
