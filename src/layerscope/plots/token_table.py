"""The logit lens's own picture: the most probable token at every depth and position, coloured by its probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.graph_objects import Figure

from layerscope.errors import LayerscopeError
from layerscope.plots.axes import depth_ticks, inert, plain, shortened
from layerscope.plots.theme import colour_scale, finish
from layerscope.results.escaping import restored, visible

_COLUMN, _BESIDE, _AROUND, _MENU = 68, 96, 120, 36
_LONGEST = 9
_MOST_ROWS, _MOST_COLUMNS = 13, 4
_HEIGHT = 380
"""Pixels in a column."""
_ROWS = ((26, 24), (40, 20))
"""Pixels of a row up to so many depths; above, less."""


@dataclass(frozen=True, eq=False)
class TokenTable:
    """One prompt's table.

    Attributes:
        name: what the menu says; it begins with the prompt's own text.
        cells: over (token, depth, place) `top_text` (stored form, most probable first) and `probability`; over token
            `token_text`, `position` and `target_text`, the token that is followed; over (token, depth) its `rank`.
    """

    name: str
    cells: xr.Dataset


def token_tables(
    tables: Sequence[TokenTable], *, column: bool = False, title: str = "", caption: str = ""
) -> Figure:
    """Positions from left to right, depth from the embeddings at the bottom up to the output, as the stream flows.

    A cell shows the most probable token, bold where it is the one that is followed; colour is its probability. Hover
    tells the others and the rank. Several prompts stand behind a menu.

    Args:
        tables: at least one.
        column: whether the figure must stand in a column: of each prompt the last four tokens, of a deep model every
            second or third depth, no colour bar.
        title: stands above the figure.
        caption: stands under the title, or wherever a page puts captions.

    Raises:
        LayerscopeError: there is none.
    """
    if not tables:
        raise LayerscopeError(
            "there is nothing to draw",
            found="no tables",
            expected="at least one prompt",
            hint="--set shown=1",
        )
    tables = [_for_a_column(one) for one in tables] if column else tables
    first = tables[0]
    trace = go.Heatmap(
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        texttemplate="%{text}",
        textfont={"size": 11},
        hovertemplate="%{customdata[0]}<extra></extra>",
        **{name: values[0] for name, values in _data(first).items()},
    )
    figure = Figure([trace])
    below = "last tokens of the prompt" if column else "token of the prompt; above it, what comes next"
    figure.update_xaxes(title=below, tickangle=0, showgrid=False, **_columns(first))
    figure.update_yaxes(title="depth [layers applied]", showgrid=False, **_rows(first))
    bar = {"title": {"text": "probability of the top token", "side": "right", "font": {"size": 13}}}
    figure.update_layout(
        coloraxis={
            "cmin": 0.0,
            "cmax": 1.0,
            "colorscale": colour_scale("recovery"),
            "colorbar": bar | {"thickness": 12},
            "showscale": not column,
        },
        showlegend=False,
    )
    heights = [_HEIGHT if column else _height(one) for one in tables]
    menu = _MENU * (len(tables) > 1)
    finish(
        figure,
        title=title,
        caption=caption,
        scale="recovery",
        height=heights[0] + menu,
        min_height=heights[0],
        top=16 + menu,
        min_width=0 if column else _BESIDE + _COLUMN * max(one.cells.sizes["token"] for one in tables),
    )
    if menu:
        figure.update_layout(
            updatemenus=[_menu(tables, heights, figure)], meta=figure.layout.meta | {"menu_height": _MENU}
        )
    return figure


def _for_a_column(one: TokenTable) -> TokenTable:
    depths = one.cells.sizes["depth"]
    step = -(-depths // _MOST_ROWS)
    shown = np.arange(depths - 1, -1, -step)[::-1]  # the output always
    return TokenTable(one.name, one.cells.isel(token=slice(-_MOST_COLUMNS, None), depth=shown))


def _data(one: TokenTable) -> dict[str, list[Any]]:
    """What differs between prompts, each for the one trace: rows are depths."""
    cells = one.cells.transpose("depth", "token", "place", ...)
    tokens, ranks = range(cells.sizes["token"]), cells["rank"].values.tolist()
    top, probability = cells.top_text.values.tolist(), cells.probability.values.astype(float)
    heads = [
        f"position {position}: {_shown(text)}"
        for position, text in zip(cells.position.values, cells.token_text.values, strict=True)
    ]
    followed = [_shown(text) for text in cells.target_text.values]
    depths = list(enumerate(cells.depth.values.tolist()))

    def hover(row: int, depth: int, column: int) -> str:
        others = zip(probability[row, column], top[row][column], strict=True)
        lines = [f"{share:.3f}  {_shown(text)}" for share, text in others]
        rank = f"rank of {followed[column]}: {ranks[row][column]:,}"
        return "<br>".join([f"depth {depth}, {heads[column]}", *lines, rank])

    return {
        "x": [list(tokens)],
        "y": [[row for row, _ in depths]],
        "z": [np.round(probability[..., 0], 3).tolist()],
        "text": [
            [[_text(top[row][column][0], ranks[row][column]) for column in tokens] for row, _ in depths]
        ],
        "customdata": [[[[hover(row, depth, column)] for column in tokens] for row, depth in depths]],
    }


def _text(token: str, rank: int) -> str:
    text = _shown(token, _LONGEST)
    return f"<b>{text}</b>" if rank == 1 else text


def _shown(token: object, longest: int = 32) -> str:
    return inert(shortened(visible(restored(str(token))), longest))


def _columns(one: TokenTable) -> dict[str, Any]:
    tokens = one.cells.token_text.values
    return {
        "tickmode": "array",
        "tickvals": list(range(len(tokens))),
        "ticktext": [_shown(token, _LONGEST) for token in tokens],
        "range": [-0.5, len(tokens) - 0.5],
    }


def _rows(one: TokenTable) -> dict[str, Any]:
    depths = one.cells.depth.values.tolist()
    ticks = range(0, len(depths), depth_ticks(len(depths) - 1, 26)["dtick"])
    texts = [f"{depths[row]}" for row in ticks]
    return {"tickmode": "array", "tickvals": [*ticks], "ticktext": texts, "range": [-0.5, len(depths) - 0.5]}


def _height(one: TokenTable) -> int:
    depths = one.cells.sizes["depth"]
    row = next((pixels for most, pixels in _ROWS if depths <= most), 17)
    return _AROUND + row * max(6, depths)


def _menu(tables: Sequence[TokenTable], heights: Sequence[int], figure: Figure) -> dict[str, Any]:
    buttons = [_button(one, height, figure) for one, height in zip(tables, heights, strict=True)]
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 10}}
    return {"type": "dropdown", "buttons": buttons, "showactive": True} | place


def _button(one: TokenTable, inside: int, figure: Figure) -> dict[str, Any]:
    height = inside + _MENU + figure.layout.meta["title_height"]
    layout = {f"xaxis.{name}": value for name, value in _columns(one).items()} | {"height": height}
    return {
        "method": "update",
        "label": inert(shortened(plain(one.name), 100)),
        "name": "",
        "args": [_data(one), layout],
    }
