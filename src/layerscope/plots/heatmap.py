"""A number for every token and depth: one prompt, or many behind a menu."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.graph_objects import Figure

from layerscope.errors import LayerscopeError
from layerscope.plots.axes import (
    STAR,
    axis_title,
    depth_axis,
    depth_ticks,
    inert,
    label,
    last_place,
    places,
    plain,
    quantity_title,
    shortened,
    token_label,
    token_ticks,
)
from layerscope.plots.hatching import hatching
from layerscope.plots.numbers import number
from layerscope.plots.theme import NEUTRAL, Scale, colour_scale, finish

_ROW, _AROUND = 24, 150
_LEAST_ROW, _LEAST_AROUND = 14, 110
_LEAST_CELL, _LEAST_CELLS, _LETTER, _BESIDE = 3, 100, 7, 96
_MENU, _MENU_LETTERS = 36, 160  # a reader finds a prompt by any of its words
_DECIMALS = 3
_ABSENT = "cells that do not exist"
_FRAME = {"showgrid": False, "showline": True, "mirror": True, "linecolor": NEUTRAL}


@dataclass(frozen=True, eq=False)
class NamedHeatmap:
    """One prompt of a gallery.

    Attributes:
        name: what the menu says: the prompt's name or its text.
        recovery: a quantity over (token, depth) or (token, layer).
        tokens: stored text of each token (results.escaping), first token first.
        starred: places of the corrupted tokens.
        category: groups the menu.
    """

    name: str
    recovery: xr.DataArray
    tokens: Sequence[str]
    starred: Iterable[int] = ()
    category: str = ""


def token_heatmap(
    recovery: xr.DataArray,
    tokens: Sequence[str],
    starred: Iterable[int] = (),
    *,
    scale: Scale = "recovery",
    root: bool = False,
    hatched: str = _ABSENT,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Tokens in reading order from the top, depth from left to right, colour for the number.

    Args:
        recovery: a quantity over (token, depth) or (token, layer). NaN means that there is no such
            cell: it is hatched and counted in the caption.
        tokens: stored text of each token (results.escaping).
        starred: places of the corrupted tokens, which get a star.
        scale: "recovery" runs from 0 to 1 and stops there, hover tells the true number; "effect" is
            centred on zero and reaches as far as the largest number.
        root: whether colours follow the square root of an effect, so that small ones are seen beside a large one.
        hatched: what cells without a number are, behind how many there are.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.
    """
    one = NamedHeatmap(title, recovery, tokens, tuple(starred))
    figure = _figure([one], scale, title, caption, hatched)
    return _by_root(figure, _grid(one)) if root else figure


def heatmap_gallery(
    heatmaps: Sequence[NamedHeatmap], *, scale: Scale = "recovery", title: str = "", caption: str = ""
) -> Figure:
    """Many prompts in one figure, with a menu to choose among them; the first is shown.

    Colours mean the same for all of them. Prompts of a category stand together in the menu, in the
    order in which categories first appear.

    Args:
        heatmaps: at least one.
        scale: as in `token_heatmap`.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.

    Raises:
        LayerscopeError: there is none, or tokens and rows of one differ in number.
    """
    first_seen = list(dict.fromkeys(one.category for one in heatmaps))
    ordered = sorted(heatmaps, key=lambda one: first_seen.index(one.category))
    return _figure(ordered, scale, title, caption)


def _figure(
    heatmaps: Sequence[NamedHeatmap], scale: Scale, title: str, caption: str, hatched: str = _ABSENT
) -> Figure:
    _check(heatmaps)
    first = heatmaps[0]
    axis = depth_axis(first.recovery)
    figure = Figure([_cells(first), hatching(_grid(first), places(first.recovery, axis))])
    last = max(last_place(one.recovery, axis) for one in heatmaps)
    figure.update_xaxes(title=axis_title(axis), **depth_ticks(last, wanted=8), **_FRAME)
    figure.update_yaxes(ticklabelstandoff=6, **_rows(first), **_FRAME)
    figure.update_layout(barmode="overlay", showlegend=False, coloraxis=_colours(heatmaps, scale))
    starred = any(tuple(one.starred) for one in heatmaps)
    caption = _caption(caption, heatmaps, starred, hatched)
    menu = _MENU * (len(heatmaps) > 1)
    sizes = {"height": _height(first) + menu, "top": 16 + menu} | _least(heatmaps)
    finish(figure, title=title, caption=caption, scale=scale, **sizes)
    if len(heatmaps) > 1:
        figure.update_layout(
            updatemenus=[_menu(heatmaps, figure)], meta=figure.layout.meta | {"menu_height": _MENU}
        )
    return figure


def _by_root(figure: Figure, values: np.ndarray) -> Figure:
    """Colours by the signed square root; colour bar and hover tell the numbers themselves."""
    cells, axis = figure.data[0], figure.layout.coloraxis
    limit = float(np.sqrt(axis.cmax))
    told = [[None if np.isnan(x) else float(f"{x:.3g}") for x in row] for row in values]
    power = 10.0 ** np.floor(np.log10(axis.cmax))
    marks = [sign * power * share for sign in (-1, 1) for share in (1, 0.1)] + [0.0]
    cells.update(
        z=[[None if x is None else float(np.sign(x) * np.sqrt(abs(x))) for x in row] for row in told],
        customdata=told,
        hovertemplate=cells.hovertemplate.replace("%{z:.3f}", "%{customdata:.3g}"),
    )
    axis.update(cmin=-limit, cmax=limit)
    ticks = [float(np.sign(mark) * np.sqrt(abs(mark))) for mark in marks]
    axis.colorbar.update(tickvals=ticks, ticktext=[number(mark) for mark in marks])
    return figure


def _check(heatmaps: Sequence[NamedHeatmap]) -> None:
    if not heatmaps:
        raise LayerscopeError(
            "there is nothing to draw",
            found="no heatmaps",
            expected="at least one",
            hint="check what was left out",
        )
    for one in heatmaps:
        if len(one.tokens) != one.recovery.sizes.get("token"):
            raise LayerscopeError(
                f"the tokens of {plain(one.name)} do not fit its numbers",
                found=f"{len(one.tokens)} tokens for {dict(one.recovery.sizes)}",
                expected="one token for each row of a (token, depth) quantity",
                hint="select the prompt in both",
            )


def _grid(one: NamedHeatmap) -> np.ndarray:
    return np.asarray(one.recovery.transpose("token", ...).values, dtype=float)


def _rounded(one: NamedHeatmap) -> list[list[float | None]]:
    # Short decimals take less room in a page than base64 of float32; a gallery can hold a thousand prompts.
    return [[None if np.isnan(x) else round(float(x), _DECIMALS) for x in row] for row in _grid(one)]


def _cells(one: NamedHeatmap) -> go.Heatmap:
    axis = depth_axis(one.recovery)
    return go.Heatmap(
        x=places(one.recovery, axis).tolist(),
        z=_rounded(one),
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate=f"%{{y}}<br>{axis} %{{x}}<br>%{{z:.3f}}<extra></extra>",
    )


def _colours(heatmaps: Sequence[NamedHeatmap], scale: Scale) -> dict[str, Any]:
    title = quantity_title(heatmaps[0].recovery, 30)
    bar = {"title": {"text": title, "side": "right", "font": {"size": 13}}, "thickness": 12}
    limit = max([0.0, *(np.nanmax(np.abs(_grid(one)), initial=0.0) for one in heatmaps)]) or 1.0
    ends = {"cmin": 0.0, "cmax": 1.0} if scale == "recovery" else {"cmin": -limit, "cmax": limit}
    return ends | {"colorscale": colour_scale(scale), "colorbar": bar}


def _rows(one: NamedHeatmap) -> dict[str, Any]:
    return token_ticks(one.tokens, one.starred) | {"range": [len(one.tokens) - 0.5, -0.5]}


def _least(heatmaps: Sequence[NamedHeatmap]) -> dict[str, int]:
    """The least legible size: room for the longest label, and for cells that can be told apart."""
    letters = max(len(token_label(token)) for one in heatmaps for token in one.tokens)
    cells = max(one.recovery.sizes[depth_axis(one.recovery)] for one in heatmaps)
    rows = max(len(one.tokens) for one in heatmaps)
    return {
        "min_width": _BESIDE + _LETTER * letters + max(_LEAST_CELLS, _LEAST_CELL * cells),
        "min_height": _LEAST_AROUND + _LEAST_ROW * rows,
    }


def _height(one: NamedHeatmap) -> int:
    return _AROUND + _ROW * max(6, len(one.tokens))


def _menu(heatmaps: Sequence[NamedHeatmap], figure: Figure) -> dict[str, Any]:
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 10}}
    return {
        "type": "dropdown",
        "buttons": [_button(one, figure) for one in heatmaps],
        "showactive": True,
    } | place


def _button(one: NamedHeatmap, figure: Figure) -> dict[str, Any]:
    name = shortened(plain(one.name), _MENU_LETTERS)
    text = f"{shortened(plain(one.category), 30)}: {name}" if one.category else name
    marks = hatching(_grid(one), places(one.recovery, depth_axis(one.recovery)))
    data = {
        "z": [_rounded(one), None],
        "x": [places(one.recovery, depth_axis(one.recovery)).tolist(), list(marks.x)],
        "y": [None, list(marks.y)],
        "base": [None, list(marks.base)],
    }
    height = _height(one) + _MENU + figure.layout.meta["title_height"]
    layout = {f"yaxis.{name}": value for name, value in _rows(one).items()} | {"height": height}
    return {
        "method": "update",
        "label": inert(text),
        "name": label(one.category),
        "args": [data, layout],
    }


def _caption(caption: str, heatmaps: Sequence[NamedHeatmap], starred: bool, hatched: str) -> str:
    empty = sum(int(np.isnan(_grid(one)).sum()) for one in heatmaps)
    marks = f"{STAR} marks corrupted tokens." if starred else ""
    absent = f"Hatched: {empty:,} {hatched}." if empty else ""
    return " ".join(part for part in (caption, marks, absent) if part)
