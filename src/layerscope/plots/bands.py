"""Lines with their intervals: the strokes that several pictures share."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from layerscope.plots.axes import places
from layerscope.plots.numbers import interval_text
from layerscope.plots.theme import NEUTRAL, faded


def line(values: xr.Dataset, axis: str, *, name: str = "", colour: str, **style: Any) -> go.Scatter:
    """`value` along an axis, with its interval and, where there is one, `n` shown on hover."""
    y = values["value"].values
    return go.Scatter(
        x=places(values, axis),
        y=y,
        name=name,
        mode="lines+markers" if _has_loners(y) else "lines",
        line={"color": colour, "width": 2},
        marker={"size": 5},
        customdata=hover_texts(values),
        hovertemplate="%{y:.3g} %{customdata}",
        **style,
    )


def _has_loners(y: np.ndarray) -> bool:
    """Whether some value stands between gaps, where a line alone would not show it."""
    known = np.concatenate([[False], np.isfinite(y), [False]])
    return bool((known[1:-1] & ~known[:-2] & ~known[2:]).any())


def hover_texts(values: xr.Dataset) -> list[str]:
    """Interval and count for each value."""
    if "low" not in values or "high" not in values:
        return [""] * values["value"].size
    ends = zip(values["low"].values, values["high"].values, strict=True)
    texts = [interval_text(low, high) for low, high in ends]
    if "n" not in values:
        return texts
    counts = np.broadcast_to(values["n"].values, (len(texts),))
    return [f"{text}, n = {int(count)}" for text, count in zip(texts, counts, strict=True)]


def band(values: xr.Dataset, axis: str, *, colour: str, **style: Any) -> go.Scatter | None:
    """The area between `low` and `high`; None where no interval is known.

    Each unbroken run of known intervals is an area of its own: a missing interval is a gap, never
    an interval that ends at zero.
    """
    if "low" not in values or "high" not in values:
        return None
    x, low, high = places(values, axis).astype(float), values["low"].values, values["high"].values
    outlines = [outline(x[run], low[run], high[run]) for run in _known_runs(low, high)]
    if not outlines:
        return None
    xs, ys = (np.concatenate(parts)[:-1] for parts in zip(*outlines, strict=True))
    return go.Scatter(
        x=xs,
        y=ys,
        fill="toself",
        fillcolor=faded(colour, 0.18),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        **style,
    )


def outline(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """There along the low ends, back along the high ones, then a gap."""
    gap = [np.nan]
    return np.concatenate([x, x[::-1], gap]), np.concatenate([low, high[::-1], gap])


def _known_runs(low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
    known = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    return [run for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1) if run.size]


def null_line(null: xr.DataArray, axis: str, *, name: str, **style: Any) -> go.Scatter:
    """What chance alone would give, dashed and grey."""
    return go.Scatter(
        x=places(null, axis),
        y=null.values,
        name=name,
        mode="lines",
        line={"color": NEUTRAL, "width": 1.5, "dash": "dash"},
        hovertemplate="%{y:.3g}",
        **style,
    )
