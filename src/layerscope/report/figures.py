"""A figure as the page keeps it: compact JSON without template, title, caption and menu of its own."""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import plotly.io as pio
from plotly.graph_objects import Figure

from layerscope.plots.theme import PAPERS, colour_scale, template

_OURS = {
    "title": "",
    "caption": "",
    "min_width": 0,
    "scale": "",
    "title_height": 0,
    "menu_height": 0,
    "more": False,
}

_COLUMN = 340
"""Pixels of a column where figures stand side by side (page.css)."""


@dataclass(frozen=True)
class PageFigure:
    """What the template needs; `json` is safe inside a script element, `packed` where it is shown only when asked."""

    anchor: str
    heading: str
    caption: str
    height: int
    min_width: int
    json: str
    more: bool = False

    @property
    def wide(self) -> bool:
        """Whether it cannot stand beside another."""
        return self.min_width > _COLUMN


def page_figure(anchor: str, heading: str, figure: Figure) -> PageFigure:
    """A figure for the page, whoever drew it; ours tell in `layout.meta` what the page may take over."""
    content = json.loads(pio.to_json(figure, engine="json", remove_uids=True))
    layout = content["layout"]
    layout.pop("template", None)
    meta = _OURS | (layout["meta"] if isinstance(layout.get("meta"), dict) else {})
    content["menu"] = _take_menu(layout, meta) if meta["menu_height"] else []
    if meta["title_height"]:
        _take_title(content, meta)
    height = int(layout.get("height") or 450)
    text = safe_json({"data": content["data"], "layout": layout, "menu": content["menu"]})
    return PageFigure(
        anchor=anchor,
        heading=heading,
        caption=str(meta["caption"]),
        height=height,
        min_width=int(meta["min_width"]),
        json=packed(text) if meta["more"] else text,
        more=bool(meta["more"]),
    )


def packed(text: str) -> str:
    """What a browser unpacks where it needs it, at a quarter of its length or so: gzip in base64, always the same."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def _take_menu(layout: dict[str, Any], meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The menu as plain values for a select element, which keyboards and narrow screens know."""
    buttons = layout.pop("updatemenus")[0]["buttons"]
    _shrink(layout, meta["menu_height"])
    for button in buttons:
        button["args"][1]["height"] -= meta["menu_height"]
    return [
        {"group": html.unescape(one["name"]), "label": html.unescape(one["label"]), "args": one["args"]}
        for one in buttons
    ]


def _take_title(content: dict[str, Any], meta: Mapping[str, Any]) -> None:
    content["layout"].pop("title", None)
    _shrink(content["layout"], meta["title_height"])
    for entry in content["menu"]:
        entry["args"][1]["height"] -= meta["title_height"]


def _shrink(layout: dict[str, Any], pixels: int) -> None:
    layout["height"] -= pixels
    layout["margin"]["t"] -= pixels


def looks() -> str:
    """Both templates and their colour scales, once for the page."""
    both = {
        paper.name: {
            "template": template(paper).to_plotly_json(),
            "scales": {scale: colour_scale(scale, paper) for scale in ("recovery", "effect")},
        }
        for paper in PAPERS
    }
    return safe_json(both)


def safe_json(value: Any) -> str:
    """JSON in ASCII that cannot end the script element it stands in; NaN becomes null."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
