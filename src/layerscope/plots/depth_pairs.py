"""How alike are every two depths? One square for each way of comparing them."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.graph_objects import Figure
from plotly.subplots import make_subplots

from layerscope.errors import LayerscopeError
from layerscope.plots.axes import axis_title, depth_ticks, label, quantity_title
from layerscope.plots.theme import colour_scale, finish

_SIDE, _TOP = 290, 40


def depth_pairs(values: xr.DataArray, *, title: str = "", caption: str = "") -> Figure:
    """Squares of depth against depth, the shallowest at the top left, in one colour scale from −1 to 1.

    Args:
        values: a similarity over depth and other_depth, and one dimension more whose labels head the squares.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.

    Raises:
        LayerscopeError: other dimensions than these.
    """
    others = [str(name) for name in values.dims if name not in ("depth", "other_depth")]
    if len(others) != 1 or {"depth", "other_depth"} - set(values.dims):
        raise LayerscopeError(
            "pairs of depths cannot be drawn of this",
            found=", ".join(map(str, values.dims)) or "(no dimensions)",
            expected="depth, other_depth and one dimension more",
            hint="values.expand_dims('row')",
        )
    names = [label(name) for name in values[others[0]].values]
    figure = make_subplots(1, len(names), subplot_titles=names, horizontal_spacing=0.07)
    depths = values["depth"].values.tolist()
    for place in range(len(names)):
        square = values.isel({others[0]: place}).transpose("depth", "other_depth").values
        figure.add_trace(_square(depths, square), row=1, col=place + 1)
    ticks = depth_ticks(max(depths), wanted=8)
    figure.update_xaxes(title=axis_title("depth"), constrain="domain", showgrid=False, **ticks)
    figure.update_yaxes(autorange="reversed", constrain="domain", showgrid=False, **ticks)
    figure.update_yaxes(title=axis_title("depth"), col=1)
    for place in range(len(names)):
        anchor = "x" if place == 0 else f"x{place + 1}"
        figure.update_yaxes(scaleanchor=anchor, col=place + 1)
    figure.update_layout(coloraxis=_colours(values), showlegend=False)
    sizes = {"height": _SIDE + _TOP + 60, "top": _TOP, "min_width": 220 * len(names) + 120}
    return finish(figure, title=title, caption=caption, scale="effect", **sizes)


def _square(depths: list[int], values: np.ndarray) -> go.Heatmap:
    return go.Heatmap(
        x=depths,
        y=depths,
        z=[[None if np.isnan(cell) else round(float(cell), 3) for cell in row] for row in values],
        coloraxis="coloraxis",
        hoverongaps=False,
        hovertemplate="depths %{y} and %{x}<br>%{z:.3f}<extra></extra>",
    )


def _colours(values: xr.DataArray) -> dict[str, object]:
    bar = {
        "title": {"text": quantity_title(values, 22), "side": "right", "font": {"size": 13}},
        "thickness": 12,
        "tickvals": [-1, 0, 1],  # short ones: beside small squares the title would stand on "−0.5"
    }
    return {"cmin": -1.0, "cmax": 1.0, "colorscale": colour_scale("effect"), "colorbar": bar}
