"""How every figure looks: colours, scales, type and margins, on light paper and on dark.

A figure carries the light template, so that it looks right in a notebook. The report takes it out
and keeps both templates once in the page; nothing else in a figure depends on the paper.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go
from plotly.graph_objects import Figure

Scale = Literal["recovery", "effect"]

COLOURS = ("#1177bb", "#dd6611", "#559988", "#aa3388", "#bb77ee", "#666633")
"""Categories, in this order. Every pair is told apart with normal, red-blind and green-blind sight, and
every colour has a contrast of at least 3 on both papers (tests/plots/test_theme.py measures it)."""

NEUTRAL = "#7f8792"
"""Nulls, zero lines, what is not distinguishable: readable on both papers."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"

PANEL_HEIGHT = 340

MOST_LEADS = 3
"""Figures that a page shows of an experiment before anything is opened, side by side where there is room."""
COLUMN = 340
"""Pixels of the narrowest column in which a lead figure must be legible."""
_TALLEST_LEAD = 380


@dataclass(frozen=True)
class Paper:
    """The colours that change between light and dark."""

    name: str
    paper: str
    ink: str
    soft: str
    grid: str
    recovery: tuple[str, ...]
    effect: tuple[str, ...]


LIGHT = Paper(
    name="light",
    paper="#ffffff",
    ink="#1c2127",
    soft="#59626d",
    grid="#e4e7eb",
    recovery=("#ffffff", "#cfe2f1", "#93c1e0", "#4b96c8", "#1a6aa5", "#0b3d6e"),
    effect=("#8a3a00", "#dd6611", "#f3c19c", "#ffffff", "#a5cde8", "#1177bb", "#0a416b"),
)
DARK = Paper(
    name="dark",
    paper="#14171c",
    ink="#e3e6ea",
    soft="#a0a8b3",
    grid="#2a2f37",
    recovery=("#14171c", "#17344f", "#1b5a8c", "#2f8cc9", "#86c2ea", "#f0f8ff"),
    effect=("#ffc79e", "#dd6611", "#6b3410", "#14171c", "#123f60", "#1177bb", "#a9d9f7"),
)
PAPERS = (LIGHT, DARK)


def colour_scale(scale: Scale, paper: Paper = LIGHT) -> list[list[Any]]:
    """Stops of a colour scale: zero has the paper's own colour, so that ink means effect."""
    stops = paper.recovery if scale == "recovery" else paper.effect
    return [[index / (len(stops) - 1), colour] for index, colour in enumerate(stops)]


def faded(colour: str, alpha: float) -> str:
    """A colour let through to a share, for bands."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def template(paper: Paper) -> go.layout.Template:
    """What figures share on one paper."""
    axis = {
        "gridcolor": paper.grid,
        "linecolor": paper.soft,
        "tickcolor": paper.soft,
        "tickfont": {"color": paper.soft, "size": 12},
        "title": {"font": {"size": 13, "color": paper.ink}, "standoff": 10},
        "zeroline": False,
        "showline": False,
        "ticks": "",
        "automargin": True,
    }
    return go.layout.Template(layout=_layout(paper) | {"xaxis": axis, "yaxis": axis})


_CORNER = {"x": 0, "xref": "container", "xanchor": "left", "yref": "container"}


def _layout(paper: Paper) -> dict[str, Any]:
    return {
        "paper_bgcolor": paper.paper,
        "plot_bgcolor": paper.paper,
        "font": {"family": FONT, "size": 13, "color": paper.ink},
        "title": {"font": {"size": 17}, "subtitle": {"font": {"size": 13, "color": paper.soft}}} | _CORNER,
        "annotationdefaults": {"font": {"size": 13}, "showarrow": False},
        "legend": {
            "bgcolor": "rgba(0,0,0,0)",
            "font": {"size": 12},
            "itemsizing": "constant",
            "tracegroupgap": 0,
        },
        "hoverlabel": {
            "bgcolor": paper.paper,
            "bordercolor": paper.soft,
            "font": {"family": FONT, "size": 13, "color": paper.ink},
            "align": "left",
        },
        "coloraxis": {
            "colorbar": {"outlinewidth": 0, "ticks": "", "tickfont": {"color": paper.soft, "size": 12}}
        },
        "colorway": list(COLOURS),
        "updatemenudefaults": {"bgcolor": paper.paper, "bordercolor": paper.soft},
    }


def finish(
    figure: Figure,
    *,
    title: str = "",
    caption: str = "",
    height: int = PANEL_HEIGHT,
    top: int = 44,
    min_width: int = 0,
    min_height: int = 0,
    scale: Scale | None = None,
) -> Figure:
    """Give a figure its template, title, caption, size and the facts that a page needs.

    `layout.meta` holds title and caption as plain text, the least legible width in pixels, which
    colour scale is used, and the pixels that title and caption take: a page that prints them
    itself drops ours and takes those pixels back.

    Args:
        figure: what to finish, in place.
        title: stands above the figure.
        caption: stands under the title.
        height: in pixels, without title and caption.
        top: pixels above the plot for legends, headings and menus.
        min_width, min_height: pixels under which it can no longer be read, without title and caption.
        scale: the colour scale that it uses, where it uses one.
    """
    from layerscope.plots.axes import escaped

    lines = textwrap.wrap(caption, 110)
    extra = 30 * bool(title) + 19 * len(lines) + 10 * bool(title or lines)
    meta = {
        "title": title,
        "caption": caption,
        "min_width": min_width,
        "min_height": min_height,
        "scale": scale or "",
        "title_height": extra,
    }
    margin = {"l": 56, "r": 16, "t": top + extra, "b": 48}
    figure.update_layout(template=template(LIGHT), height=height + extra, margin=margin, meta=meta)
    if extra:
        subtitle = {"text": "<br>".join(escaped(line) for line in lines)}
        place = {"y": 1, "yanchor": "top", "pad": {"t": 12 if title else 0}}
        figure.update_layout(title={"text": escaped(title or " "), "subtitle": subtitle} | place)
    return figure


def more(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """Figures that are there for who wants more: a page leads with the others, and shows these when asked."""
    for figure in figures.values():
        figure.update_layout(meta=dict(figure.layout.meta or {}) | {"more": True})
    return dict(figures)


def leading(figures: Mapping[str, Figure], lead: Sequence[str]) -> dict[str, Figure]:
    """An experiment's figures as a page wants them: those to begin with in front, at one height, all others as more.

    Args:
        figures: by name, in the order in which a reader wants them.
        lead: names that answer the question, the best first: three of those that were drawn lead; the first two
            figures where none was.
    """
    chosen = [name for name in lead if name in figures][:MOST_LEADS] or list(figures)[:2]
    leads = {name: figures[name] for name in chosen}
    least = {name: int(figure.layout.meta["min_height"]) for name, figure in leads.items()}
    alike = min(_TALLEST_LEAD, max([PANEL_HEIGHT, *least.values()]))
    for name, figure in leads.items():
        _set_height(figure, max(alike, least[name]))
    return leads | more({name: figure for name, figure in figures.items() if name not in leads})


def _set_height(figure: Figure, height: int) -> None:
    """A figure and every choice of its menu at one height, besides what title, caption and menu take."""
    meta = figure.layout.meta
    whole = height + meta["title_height"] + meta.get("menu_height", 0)
    for menu in figure.layout.updatemenus:
        for button in menu.buttons:
            button.args = (button.args[0], dict(button.args[1]) | {"height": whole})
    figure.update_layout(height=whole)


def legend_above(raised: float = 0.0) -> dict[str, Any]:
    """A legend in one row above the plot, at its left edge, raised by a share of the plot's height."""
    return {"orientation": "h", "x": 0, "xanchor": "left", "y": 1 + raised, "yanchor": "bottom"}
