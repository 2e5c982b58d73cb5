"""A quantity over layer or depth, with its interval and what chance would give."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.graph_objects import Figure

from layerscope.errors import LayerscopeError
from layerscope.plots.axes import axis_title, depth_axis, depth_ticks, label, last_place, quantity_title
from layerscope.plots.bands import band, line, null_line
from layerscope.plots.clip import clip as clip_at
from layerscope.plots.clip import far_place
from layerscope.plots.theme import COLOURS, finish, legend_above

_NAME = 38
"""Characters of a line of a legend in a column."""


def curve_over_depth(
    values: xr.Dataset, *, log: bool = False, clip: bool = False, title: str = "", caption: str = ""
) -> Figure:
    """One line, or one for each category, row, ..., over layer or depth.

    Args:
        values: `value`, and where known `low`, `high`, `null` and `n`, over one of layer and depth
            and at most one dimension more, whose labels name the lines. NaN is a gap. The attribute `name` of
            `null` stands in the legend.
        log: whether the height is logarithmic.
        clip: whether one place that would flatten all others is written at the panel's edge instead.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.

    Raises:
        LayerscopeError: no `value`, or dimensions that cannot be drawn as lines over depth.
    """
    axis = depth_axis(_value(values))
    figure = Figure()
    for (name, one), colour in zip(lines(values, axis), cycle(COLOURS), strict=False):
        _add(figure, band(one, axis, colour=colour, legendgroup=name))
        _add(figure, line(one, axis, name=label(name, _NAME) or "measured", colour=colour, legendgroup=name))
    _add_nulls(figure, values, axis)
    figure.update_xaxes(title=axis_title(axis), **depth_ticks(last_place(values, axis)))
    far = far_place(values, axis, log=log) if clip else None
    near = values.drop_isel({axis: far.index}) if far else values
    figure.update_yaxes(title=quantity_title(values["value"]), **(log_ticks(near) if log else {}))
    if far:
        clip_at(figure, values, axis, far)
    several = sum(trace.showlegend is not False for trace in figure.data) > 1
    figure.update_layout(hovermode="x unified", showlegend=several, legend=legend_above())
    return finish(figure, title=title, caption=caption, top=44 if several else 16)


def log_ticks(shown: xr.Dataset) -> dict[str, Any]:
    """1, 2, 5, 10, 20, ..., over many powers of ten these alone, over less than one some more: plotly's own choice is
    bare digits between them."""
    ends = np.concatenate([shown[name].values.ravel() for name in ("value", "low", "high") if name in shown])
    known = ends[np.isfinite(ends) & (ends > 0)]
    ratio = known.max() / known.min() if known.size else 1.0
    digits = (1,) if ratio > 1e3 else (1, 2, 5) if ratio > 6 else (1, 1.5, 2, 3, 4, 5, 7)
    values = [digit * 10.0**power for power in range(-12, 13) for digit in digits]
    return {"type": "log", "tickmode": "array", "tickvals": values, "ticktext": [f"{v:.6g}" for v in values]}


def _value(values: xr.Dataset) -> xr.DataArray:
    if "value" in values:
        return values["value"]
    raise LayerscopeError(
        "a curve cannot be drawn of this",
        found=f"variables {', '.join(str(name) for name in values.data_vars) or '(none)'}",
        expected="value, and where known low, high, null and n",
        hint="values = xr.Dataset({'value': ..., 'low': ..., 'high': ...})",
    )


def lines(values: xr.Dataset, axis: str) -> Iterator[tuple[str, xr.Dataset]]:
    """Each line with its name: the labels of the one other dimension, or a single nameless line.

    Raises:
        LayerscopeError: there are several other dimensions.
    """
    others = [str(name) for name in values["value"].dims if name != axis]
    if len(others) > 1:
        raise LayerscopeError(
            "too many dimensions for lines over depth",
            found=", ".join([axis, *others]),
            expected=f"{axis} and at most one other",
            hint=f"values.sel({others[-1]}=...), or rows_by_category for category and row",
        )
    if not others:
        yield "", values
    for place, name in enumerate(values[others[0]].values if others else ()):
        yield str(name), values.isel({others[0]: place})


def _add(figure: Figure, trace: go.Scatter | None) -> None:
    if trace is not None:
        figure.add_trace(trace)


def _add_nulls(figure: Figure, values: xr.Dataset, axis: str) -> None:
    if "null" not in values:
        return
    whose = label(values["null"].attrs.get("name", "null"))
    if set(values["null"].dims) <= {axis}:
        _add(figure, null_line(values["null"], axis, name=whose))
        return
    for place, ((name, one), colour) in enumerate(zip(lines(values, axis), cycle(COLOURS), strict=False)):
        if place == 0:  # one entry for all, of a line that is nowhere: an empty one would have none
            _add(figure, null_line(one["null"] * np.nan, axis, name=whose))
        dashed = null_line(
            one["null"], axis, name=f"{whose}, {label(name)}", legendgroup=name, showlegend=False
        )
        _add(figure, dashed.update(line_color=colour))
