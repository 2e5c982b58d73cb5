"""A quantity along a text: position from left to right on a logarithmic axis, one line for each label."""

from __future__ import annotations

from itertools import cycle

import xarray as xr
from plotly.graph_objects import Figure

from layerscope.plots.axes import label, quantity_title
from layerscope.plots.bands import band, line, null_line
from layerscope.plots.curves import lines, log_ticks
from layerscope.plots.theme import COLOURS, finish, legend_above


def curves_along_text(
    values: xr.Dataset, axis: str, *, log: bool = False, title: str = "", caption: str = ""
) -> Figure:
    """Lines over positions in a text.

    Args:
        values: `value`, and where known `low`, `high`, over `axis` and at most one dimension more; `null`
            over `axis`.
        axis: the dimension whose coordinate counts positions, from 1.
        log: whether the height is logarithmic too.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.
    """
    figure = Figure()
    for (name, one), colour in zip(lines(values, axis), cycle(COLOURS), strict=False):
        area = band(one, axis, colour=colour, legendgroup=name)
        if area is not None:
            figure.add_trace(area)
        figure.add_trace(line(one, axis, name=label(name), colour=colour, legendgroup=name))
    if "null" in values:
        figure.add_trace(null_line(values["null"], axis, name="uniform"))
    ticks = {"tickmode": "array", "tickvals": [2**power for power in range(24)]}
    figure.update_xaxes(title="position in the text [tokens]", type="log", **ticks)
    figure.update_yaxes(title=quantity_title(values["value"]), **(log_ticks(values) if log else {}))
    figure.update_layout(hovermode="x unified", legend=legend_above())
    return finish(figure, title=title, caption=caption)
