"""Differences between pairs, with intervals and a zero line."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import xarray as xr
from plotly.graph_objects import Figure

from layerscope.errors import LayerscopeError
from layerscope.plots.axes import inert, plain, quantity_title
from layerscope.plots.numbers import p_text, with_interval
from layerscope.plots.theme import COLOURS, NEUTRAL, finish

_ROW, _LINE, _SPARE, _AROUND = 30, 16, 6, 90
_NAME, _TITLE = 46, 44  # characters of a line in a column
_UNBROKEN = "\u00a0"


def differences(contrasts: xr.Dataset, *, level: float = 0.05, title: str = "", caption: str = "") -> Figure:
    """Each pair's difference with its interval under its name; in grey where it cannot be told from zero.

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
    names = _names(contrasts[over].values, contrasts["p_adjusted"].values, clear)
    lines = max(name.count("<br>") + 1 for name in names)
    row = _ROW + _LINE * lines
    figure.update_yaxes(range=[len(names) - 1 + 12 / row, 12 / row - 1], showticklabels=False, showgrid=False)
    figure.update_xaxes(title=quantity_title(contrasts["difference"], _TITLE))
    figure.add_vline(0, line={"color": NEUTRAL, "width": 1.5}, layer="below")
    _write(figure, names, clear)
    figure.update_layout(showlegend=False, hovermode="closest")
    height, least = (_AROUND + pixels * max(3, len(names)) for pixels in (row, row - _SPARE))
    finish(figure, title=title, caption=caption, height=height, top=16, min_width=320, min_height=least)
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


def _names(pairs: np.ndarray, ps: np.ndarray, clear: np.ndarray) -> list[str]:
    """Each pair's name with its p, in lines that a narrow page has room for."""
    names = []
    for name, p, told in zip(pairs, ps, clear, strict=True):
        words = [p_text(float(p))] * bool(np.isfinite(p)) + ["not significant"] * (not told)
        verdict = f" ({', '.join(words)})".replace(" ", _UNBROKEN).replace(_UNBROKEN, " ", 1) if words else ""
        whole = plain(name) + verdict
        names.append("<br>".join(map(inert, textwrap.wrap(whole, _NAME, break_on_hyphens=False))))
    return names


def _write(figure: Figure, names: Sequence[str], clear: np.ndarray) -> None:
    """Names above their intervals."""
    place = {"x": 0, "xref": "paper", "xanchor": "left", "yref": "y", "yanchor": "bottom", "yshift": 6}
    for row, name in enumerate(names):
        font = {"size": 12} if clear[row] else {"size": 12, "color": NEUTRAL}
        figure.add_annotation(text=name, font=font, showarrow=False, align="left", y=row, **place)
