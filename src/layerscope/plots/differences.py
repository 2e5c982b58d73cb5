"""Differences between pairs, with intervals and a zero line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from plotly.graph_objects import Figure

from layerscope.errors import LayerscopeError
from layerscope.plots.axes import escaped, label, quantity_title
from layerscope.plots.numbers import p_text, with_interval
from layerscope.plots.theme import COLOURS, NEUTRAL, finish

_ROW, _AROUND = 46, 90


def differences(contrasts: xr.Dataset, *, level: float = 0.05, title: str = "", caption: str = "") -> Figure:
    """Each pair's difference with its interval; in grey where it cannot be told from zero.

    Args:
        contrasts: `difference`, `low`, `high`, `p_adjusted` over one dimension whose labels name the
            pairs, drawn from the top; where there is a `significant`, it decides the colour. A p that
            is not known (NaN) is not written.
        level: a pair is significant where `p_adjusted` is below this.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.

    Raises:
        LayerscopeError: a variable is missing, or there is more than one dimension.
    """
    over = _dimension(contrasts)
    figure = Figure()
    clear = _significant(contrasts, level)
    for wanted, colour in ((True, COLOURS[0]), (False, NEUTRAL)):
        _add(figure, contrasts, np.flatnonzero(clear == wanted), colour)
    names = [label(name) for name in contrasts[over].values]
    figure.update_yaxes(range=[len(names) - 0.4, -0.7], showticklabels=False, showgrid=False)
    figure.update_xaxes(title=quantity_title(contrasts["difference"]))
    figure.add_vline(0, line={"color": NEUTRAL, "width": 1.5}, layer="below")
    _write_pairs(figure, names, contrasts["p_adjusted"].values, clear)
    figure.update_layout(showlegend=False, hovermode="closest")
    height = _AROUND + _ROW * max(3, len(names))
    finish(figure, title=title, caption=caption, height=height, top=16, min_width=320)
    return figure.update_layout(margin_l=16)


def _dimension(contrasts: xr.Dataset) -> str:
    needed = ("difference", "low", "high", "p_adjusted")
    missing = [name for name in needed if name not in contrasts]
    dims = () if missing else contrasts["difference"].dims
    if not missing and len(dims) == 1:
        return str(dims[0])
    raise LayerscopeError(
        "differences cannot be drawn of this",
        found=f"no {', '.join(missing)}"
        if missing
        else f"dimensions {', '.join(map(str, dims)) or '(none)'}",
        expected=f"{', '.join(needed)} over one dimension, whose labels name the pairs",
        hint="select the other dimensions first",
    )


def _significant(contrasts: xr.Dataset, level: float) -> np.ndarray:
    if "significant" in contrasts:
        return np.asarray(contrasts["significant"].values, dtype=bool)
    return np.asarray(contrasts["p_adjusted"].values < level)


def _add(figure: Figure, contrasts: xr.Dataset, rows: np.ndarray, colour: str) -> None:
    at, low, high = (contrasts[name].values[rows].astype(float) for name in ("difference", "low", "high"))
    ends = {"type": "data", "symmetric": False, "array": high - at, "arrayminus": at - low}
    texts = [with_interval(a, b, c) for a, b, c in zip(at, low, high, strict=True)]
    figure.add_scatter(
        x=at,
        y=rows,
        mode="markers",
        marker={"color": colour, "size": 10},
        error_x=ends | {"color": colour, "thickness": 2, "width": 0},
        customdata=texts,
        hovertemplate="%{customdata}<extra></extra>",
    )


def _write_pairs(figure: Figure, names: Sequence[str], ps: np.ndarray, clear: np.ndarray) -> None:
    """Each pair's name above its interval, where a narrow page has room for it, with its p."""
    place = {"x": 0, "xref": "paper", "xanchor": "left", "yref": "y", "yanchor": "bottom", "yshift": 6}
    for row, (name, p) in enumerate(zip(names, ps, strict=True)):
        told = [p_text(float(p))] if np.isfinite(p) else []
        told += [] if clear[row] else ["not significant"]
        text = f"{name} ({escaped(', '.join(told))})" if told else name
        font = {"size": 12} if clear[row] else {"size": 12, "color": NEUTRAL}
        figure.add_annotation(text=text, font=font, showarrow=False, align="left", y=row, **place)
