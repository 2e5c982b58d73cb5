"""How a quantity is spread, over layer or depth: bands between quantiles, with the median."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.graph_objects import Figure

from layerscope.errors import LayerscopeError
from layerscope.plots.axes import axis_title, depth_axis, depth_ticks, last_place, places, quantity_title
from layerscope.plots.theme import COLOURS, faded, finish, legend_above


def fan_over_depth(quantiles: xr.DataArray, *, title: str = "", caption: str = "") -> Figure:
    """Nested bands, the outermost lightest, and a line for the median.

    Args:
        quantiles: values over `quantile` and one of layer and depth; quantiles are paired from outside, and
            the middle one is the line. NaN is a gap.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.

    Raises:
        LayerscopeError: no dimension `quantile`, or an even number of quantiles.
    """
    axis = depth_axis(quantiles)
    if "quantile" not in quantiles.dims or quantiles.sizes["quantile"] % 2 == 0:
        raise LayerscopeError(
            "a fan cannot be drawn of this",
            found=f"dimensions {dict(quantiles.sizes)}",
            expected="an odd number of quantiles, over layer or depth",
            hint="quantiles 0.05, 0.25, 0.5, 0.75, 0.95",
        )
    ordered = quantiles.sortby("quantile")
    shares = ordered["quantile"].values
    figure, x, middle = Figure(), places(quantiles, axis), len(shares) // 2
    for pair in range(middle):
        low, high = ordered.isel(quantile=pair), ordered.isel(quantile=-1 - pair)
        name = f"{shares[pair]:.0%} to {shares[-1 - pair]:.0%}"
        for trace in _band(x, low.values, high.values, name, 0.16 + 0.16 * pair):
            figure.add_trace(trace)
    figure.add_scatter(
        x=x,
        y=ordered.isel(quantile=middle).values,
        name="median",
        mode="lines",
        line={"color": COLOURS[0], "width": 2.5},
        hovertemplate="%{y:.3g}",
    )
    figure.update_xaxes(title=axis_title(axis), **depth_ticks(last_place(quantiles, axis)))
    figure.update_yaxes(title=quantity_title(quantiles))
    figure.update_layout(hovermode="x unified", legend=legend_above())
    return finish(figure, title=title, caption=caption)


def _band(x: np.ndarray, low: np.ndarray, high: np.ndarray, name: str, alpha: float) -> list[go.Scatter]:
    known = np.isfinite(low) & np.isfinite(high)
    outline = (np.concatenate([x[known], x[known][::-1]]), np.concatenate([low[known], high[known][::-1]]))
    area = go.Scatter(
        x=outline[0],
        y=outline[1],
        fill="toself",
        fillcolor=faded(COLOURS[0], alpha),
        line={"width": 0},
        mode="lines",
        name=name,
        hoverinfo="skip",
    )
    texts = [f"{name}: {a:.3g} to {b:.3g}" for a, b in zip(low[known], high[known], strict=True)]
    told = go.Scatter(
        x=x[known],
        y=low[known],
        mode="lines",
        line={"width": 0},
        customdata=texts,
        hovertemplate="%{customdata}<extra></extra>",
        showlegend=False,
    )
    return [area, told]
