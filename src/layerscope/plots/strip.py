"""The layers at a glance: one small panel for each measurement, all on one axis of depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.graph_objects import Figure
from plotly.subplots import make_subplots

from layerscope.errors import LayerscopeError
from layerscope.plots.axes import depth_axis, depth_ticks, escaped, label, places, quantity_title
from layerscope.plots.bands import band, line, null_line
from layerscope.plots.curves import lines, log_ticks
from layerscope.plots.theme import COLOURS, NEUTRAL, finish

_PANEL, _AROUND = 120, 76
_ALONE, _SEVERAL = 340, 560  # pixels that headings need


@dataclass(frozen=True, eq=False)
class StripRow:
    """One panel.

    Attributes:
        name: stands over the panel.
        values: `value` and where known `low`, `high`, `null` over layer or depth (an experiment's
            `over_depth`), and at most one dimension more.
        n_layers: blocks of the model.
        twins: the same of the model's untrained twins, where those were measured; drawn dotted.
    """

    name: str
    values: xr.Dataset
    n_layers: int
    twins: Sequence[xr.Dataset] = ()


def layers_at_a_glance(
    rows: Sequence[StripRow], *, title: str = "", caption: str = "", panel: int = _PANEL
) -> Figure:
    """Panels under one another on a common axis, each with its own scale of height.

    The axis counts blocks applied, a layer standing between the depth before it and the one after;
    where models differ in length it is the fraction of the depth.

    Args:
        rows: at least one, drawn from the top.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.
        panel: height of one panel [px].
    """
    if not rows:
        raise LayerscopeError(
            "there is nothing to draw", found="no rows", expected="at least one", hint="skip the strip then"
        )
    longest = max(row.n_layers for row in rows)
    fraction = any(row.n_layers != longest for row in rows)
    alone = len(rows) == 1
    titles = [_heading(row, alone) for row in rows]
    spacing = {"shared_xaxes": True, "vertical_spacing": 0.3 / len(rows)}
    figure = make_subplots(len(rows), 1, subplot_titles=titles, **spacing)
    for place, row in enumerate(rows, start=1):
        for trace in _traces(row, fraction):
            figure.add_trace(trace, row=place, col=1)
    _lay_out(figure, fraction, longest)
    for place, row in enumerate(rows, start=1):
        if row.values.attrs.get("log"):
            figure.update_yaxes(row=place, **log_ticks(_above_zero(row.values)))
    if alone:
        figure.update_yaxes(title=quantity_title(rows[0].values["value"]))
    figure.update_layout(showlegend=False, hovermode="x unified")
    top, width = (44, _ALONE) if alone else (28, _SEVERAL)
    height = _AROUND + panel * len(rows)
    return finish(figure, title=title, caption=caption, height=height, top=top, min_width=width)


def _lay_out(figure: Figure, fraction: bool, longest: int) -> None:
    ticks = {"dtick": 0.1, "range": [-0.01, 1.01]} if fraction else depth_ticks(longest)
    span = {} if fraction else {"range": [-0.01 * longest, longest * 1.01]}
    figure.update_xaxes(**(ticks | span))
    bottom = "fraction of the model's depth" if fraction else "depth [layers applied]"
    axes = list(figure.select_xaxes())
    axes[-1].update(title=bottom)
    figure.update_yaxes(nticks=4)
    figure.update_annotations(x=0, xanchor="left", align="left", font={"size": 13})


def _heading(row: StripRow, alone: bool) -> str:
    """Name and quantity, which stands along the axis of a panel alone; then strokes, since there is no legend."""
    axis = depth_axis(row.values["value"])
    names = [name for name, _ in lines(row.values, axis)]
    keys = [(colour, f"● {label(name)}") for name, colour in zip(names, cycle(COLOURS), strict=False)]
    keys = keys if len(names) > 1 else []
    if "null" in row.values and row.values["null"].dims == (axis,):
        keys.append((NEUTRAL, f"╌╌ {escaped(str(row.values['null'].attrs.get('name', 'null')))}"))
    drawn = {
        trace.legendgroup for trace in _of_twins(row, axis, fraction=False) if trace and trace.legendgroup
    }
    if drawn:
        several = f"{len(drawn)} untrained twins" if len(drawn) > 1 else "untrained twin"
        keys.append((COLOURS[0] if len(names) == 1 else NEUTRAL, f"••• {several}"))
    told = "".join(f' &nbsp; <span style="color:{colour}">{text}</span>' for colour, text in keys)
    told = told.removeprefix(" &nbsp; ") if alone else told
    quantity = "" if alone else f" {quantity_title(row.values['value'], 200)}"
    return f"<b>{escaped(row.name)}</b>{quantity}{'<br>' * bool(alone and told)}{told}"


def _traces(row: StripRow, fraction: bool) -> list[go.Scatter]:
    axis = depth_axis(row.values["value"])
    placed = _placed(row.values, row.n_layers, axis, fraction)
    drawn: list[go.Scatter | None] = []
    for (name, one), colour in zip(lines(placed, axis), cycle(COLOURS), strict=False):
        drawn += [
            band(one, axis, colour=colour),
            line(one, axis, name=label(name or row.name), colour=colour),
        ]
    if "null" in placed and placed["null"].dims == (axis,):
        drawn.append(null_line(placed["null"], axis, name="null"))
    return [trace for trace in [*drawn, *_of_twins(row, axis, fraction)] if trace is not None]


def _of_twins(row: StripRow, axis: str, fraction: bool) -> Iterator[go.Scatter | None]:
    """Twins' lines, dotted, each in the colour of the line that it stands beside; of one alone its band, too."""
    own = [name for name, _ in lines(row.values, axis)]
    for number, twin in enumerate(row.twins, start=1):
        if depth_axis(twin["value"]) != axis:
            continue
        for name, one in lines(_placed(twin, row.n_layers, axis, fraction), axis):
            if name in own and np.isfinite(one["value"].values).any():
                if len(row.twins) == 1:
                    yield band(one, axis, colour=NEUTRAL)
                colour, said = (
                    COLOURS[own.index(name) % len(COLOURS)],
                    f"{label(name or row.name)}, untrained",
                )
                stroke = line(one, axis, name=said, colour=colour)
                yield stroke.update(line_dash="dot", line_width=1.5, legendgroup=f"twin {number}")


def _above_zero(values: xr.Dataset) -> xr.Dataset:
    """Curves without the places where they are not above 0, which no log axis holds."""
    drawn = values[[name for name in ("value", "low", "high", "null") if name in values]]
    return drawn.where(drawn["value"] > 0)


def _placed(values: xr.Dataset, n_layers: int, axis: str, fraction: bool) -> xr.Dataset:
    values = _above_zero(values) if values.attrs.get("log") else values
    shift = 0.5 if axis == "layer" else 0.0
    at = np.asarray(places(values, axis), dtype=float) + shift
    return values.assign_coords({axis: at / n_layers if fraction else at})
