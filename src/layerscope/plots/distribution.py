"""One number per prompt: every prompt as a point, groups side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.graph_objects import Figure

from layerscope.errors import LayerscopeError
from layerscope.plots.axes import label, quantity_title
from layerscope.plots.numbers import with_interval
from layerscope.plots.theme import COLOURS, faded, finish

_ROW, _AROUND = 78, 90
_LEAST_ROW = 48
_LABEL, _TITLE = 18, 28  # characters of a line beside the plot and under it, in a column
_SPREAD = 0.2
_GOLDEN = 0.6180339887498949


def distribution(
    values: xr.DataArray,
    groups: Sequence[str],
    means: xr.Dataset | None = None,
    *,
    names: Sequence[str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """All values of each group as a strip of points, with the group's mean and interval under it.

    Args:
        values: one number per prompt (any single dimension). NaN is counted in the caption, not drawn.
        groups: the group of each value; groups are drawn from the top in order of first appearance.
        means: `value`, `low`, `high` over one dimension whose labels are the groups.
        names: what hover calls each value; by default the labels of its dimension.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.
    """
    shown = [str(name) for name in (values[values.dims[0]].values if names is None else names)]
    _check(values, groups, shown)
    order = list(dict.fromkeys(groups))
    figure = Figure()
    for row, (group, colour) in enumerate(zip(order, cycle(COLOURS), strict=False)):
        members = [place for place, other in enumerate(groups) if other == group]
        figure.add_trace(_points(values, members, shown, row, colour))
        if means is not None:
            _add_mean(figure, means, group, row, colour)
    ticks = {"tickvals": list(range(len(order))), "ticktext": [_tick(values, groups, name) for name in order]}
    figure.update_yaxes(range=[len(order) - 0.5, -0.5], tickmode="array", showgrid=False, **ticks)
    figure.update_xaxes(title=quantity_title(values, _TITLE), nticks=8)
    figure.update_layout(showlegend=False, hovermode="closest")
    height, least = (_AROUND + row * len(order) for row in (_ROW, _LEAST_ROW))
    caption = _caption(caption, values)
    return finish(figure, title=title, caption=caption, height=height, top=16, min_height=least)


def _check(values: xr.DataArray, groups: Sequence[str], names: Sequence[str]) -> None:
    if values.ndim != 1 or not len(groups) == len(names) == values.size:
        raise LayerscopeError(
            "a distribution cannot be drawn of this",
            found=f"dimensions {dict(values.sizes)}, {len(groups)} groups, {len(names)} names",
            expected="one number, one group and one name for each prompt",
            hint="select the other dimensions first",
        )


def _tick(values: xr.DataArray, groups: Sequence[str], group: str) -> str:
    known = int(np.isfinite(values.values[[other == group for other in groups]]).sum())
    return f"{label(group, _LABEL)}<br>n = {known}"


def _points(
    values: xr.DataArray, members: list[int], names: Sequence[str], row: int, colour: str
) -> go.Scatter:
    known = [place for place in members if np.isfinite(values.values[place])]
    # Multiples of the golden ratio spread neighbours apart without chance: the picture repeats.
    jitter = (np.arange(len(known)) * _GOLDEN) % 1 - 0.5
    return go.Scatter(
        x=values.values[known],
        y=row - 0.08 + 2 * _SPREAD * jitter,
        mode="markers",
        marker={"color": faded(colour, 0.6), "size": 8, "line": {"width": 0}},
        customdata=[label(names[place]) for place in known],
        hovertemplate="%{customdata}<br>%{x:.3g}<extra></extra>",
    )


def _add_mean(figure: Figure, means: xr.Dataset, group: str, row: int, colour: str) -> None:
    over = means["value"].dims[0]
    places = np.flatnonzero(means[over].values == group)
    if not places.size:
        return
    one = means.isel({over: places[0]})
    at, low, high = (float(one[name]) for name in ("value", "low", "high"))
    ends = {"type": "data", "symmetric": False, "array": [high - at], "arrayminus": [at - low]}
    figure.add_scatter(
        x=[at],
        y=[row + 0.3],
        mode="markers",
        marker={"color": colour, "size": 10, "symbol": "diamond"},
        error_x=ends | {"color": colour, "thickness": 2.5, "width": 0},
        customdata=[f"mean {with_interval(at, low, high)}"],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _caption(caption: str, values: xr.DataArray) -> str:
    missing = int(np.isnan(values.values).sum())
    without = "has no value and is" if missing == 1 else "have no value and are"
    unknown = f"{missing} of {values.size} {without} not drawn." if missing else ""
    return " ".join(part for part in (caption, unknown) if part)
