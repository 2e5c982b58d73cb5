"""Small multiples: for each category, the rows of a causal trace over depth."""

from __future__ import annotations

import math
from itertools import cycle

import numpy as np
import xarray as xr
from plotly.graph_objects import Figure
from plotly.subplots import make_subplots

from layerscope.plots.axes import axis_title, depth_axis, depth_ticks, label, last_place, quantity_title
from layerscope.plots.bands import band, line
from layerscope.plots.numbers import with_interval
from layerscope.plots.theme import COLOURS, NEUTRAL, finish, legend_above

_TOP, _LINE, _INSIDE = 44, 18, 250
_LEAST = 215  # pixels of a panel's column
_TITLE = 24  # characters of a line above a panel of three


def _columns(panels: int) -> int:
    return 2 if panels in (2, 4) else min(3, panels)


def rows_by_category(
    values: xr.Dataset, transitions: xr.Dataset | None = None, *, title: str = "", caption: str = ""
) -> Figure:
    """One panel for each category, one line for each row (the corrupted tokens, the last token, ...).

    All panels share both axes, so that heights and depths compare by eye.

    Args:
        values: `value`, `low`, `high`, and where known `n`, over category, row and depth (or layer).
        transitions: `value`, `low`, `high` over category: crossover depths. Drawn as a
            vertical line with its interval shaded; NaN (no crossover) is written, not drawn.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.
    """
    axis = depth_axis(values["value"])
    figure = _panels(values, transitions)
    columns = _columns(values.sizes["category"])
    for place in range(values.sizes["category"]):
        cell = {"row": place // columns + 1, "col": place % columns + 1}
        _draw_rows(figure, values.isel(category=place), axis, cell, first=place == 0)
        if transitions is not None:
            _draw_transition(figure, transitions.isel(category=place), cell)
    _title_axes(figure, values, axis)
    inside = _INSIDE * math.ceil(values.sizes["category"] / columns)
    above = _LINE * max(note.text.count("<br>") + 1 for note in figure.layout.annotations)
    figure.update_layout(hovermode="x unified", legend=legend_above(raised=(8 + above) / inside))
    height = _TOP + above + inside + 48
    sizes = {"height": height, "top": _TOP + above, "min_width": _LEAST * columns, "min_height": height}
    return finish(figure, title=title, caption=caption, **sizes)


def _panels(values: xr.Dataset, transitions: xr.Dataset | None) -> Figure:
    titles = [label(name, _TITLE) for name in values["category"].values]
    if transitions is not None:
        titles = [_titled(title, transitions.isel(category=place)) for place, title in enumerate(titles)]
    columns = _columns(len(titles))
    rows = math.ceil(len(titles) / columns)
    spacing = {"horizontal_spacing": 0.05, "vertical_spacing": 0.3 / rows}
    figure = make_subplots(rows, columns, shared_yaxes="all", subplot_titles=titles, **spacing)
    return figure.update_annotations(font={"size": 13})


def _titled(title: str, transition: xr.Dataset) -> str:
    at, low, high = (float(transition[name]) for name in ("value", "low", "high"))
    text = "no crossover" if math.isnan(at) else f"crossover {with_interval(at, low, high)}"
    return f'{title}<br><span style="font-size:11px;color:{NEUTRAL}">{text}</span>'


def _draw_rows(figure: Figure, values: xr.Dataset, axis: str, cell: dict[str, int], *, first: bool) -> None:
    for place, colour in zip(range(values.sizes["row"]), cycle(COLOURS), strict=False):
        one = values.isel(row=place)
        name = str(one["row"].values)
        area = band(one, axis, colour=colour, legendgroup=name)
        if area is not None:
            figure.add_trace(area, **cell)
        stroke = line(one, axis, name=label(name), colour=colour, legendgroup=name, showlegend=first)
        figure.add_trace(stroke, **cell)


def _draw_transition(figure: Figure, transition: xr.Dataset, cell: dict[str, int]) -> None:
    at, low, high = (float(transition[name]) for name in ("value", "low", "high"))
    if math.isfinite(low) and math.isfinite(high):
        figure.add_vrect(low, high, fillcolor=NEUTRAL, opacity=0.16, line_width=0, layer="below", **cell)
    if math.isfinite(at):
        figure.add_vline(at, line={"color": NEUTRAL, "width": 1.5, "dash": "dot"}, **cell)


def _title_axes(figure: Figure, values: xr.Dataset, axis: str) -> None:
    last, panels = last_place(values, axis), values.sizes["category"]
    figure.update_xaxes(range=[-0.02 * last, last * 1.02], **depth_ticks(last, wanted=8))
    figure.update_yaxes(range=_span(values))
    figure.update_yaxes(title=quantity_title(values["value"], 26), col=1)
    columns = _columns(panels)
    for place in range(max(0, panels - columns), panels):
        figure.update_xaxes(title=axis_title(axis), row=place // columns + 1, col=place % columns + 1)


def _span(values: xr.Dataset) -> list[float]:
    """From 0 to 1 at least, and as far as any value or interval goes."""
    ends = np.concatenate(
        [values[name].values.ravel() for name in ("value", "low", "high") if name in values]
    )
    known = ends[np.isfinite(ends)]
    return [min(0.0, *known) - 0.04, max(1.0, *known) + 0.04]
