"""Axes and labels: which of layer and depth a variable has, and how texts are shown."""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.escaping import restored, visible

STAR = "★"
"""Marks a noised token. Not an asterisk: a token may hold one."""


def depth_axis(values: xr.Dataset | xr.DataArray) -> str:
    """Which of "depth" and "layer" the values lie along.

    Raises:
        LayerscopeError: neither, or both.
    """
    found = [name for name in ("depth", "layer") if name in values.dims]
    if len(found) == 1:
        return found[0]
    raise LayerscopeError(
        "a picture over depth cannot be drawn of this",
        found=f"dimensions {', '.join(str(name) for name in values.dims) or '(none)'}",
        expected="exactly one of depth and layer",
        hint="select or average the other dimensions first",
    )


def places(values: xr.Dataset | xr.DataArray, axis: str) -> np.ndarray:
    """Positions along an axis: its coordinate, or 0, 1, 2, ... where it has none."""
    return np.asarray(values[axis].values)


def last_place(values: xr.Dataset | xr.DataArray, axis: str) -> float:
    """The deepest position along an axis."""
    return float(places(values, axis).max())


def axis_title(axis: str) -> str:
    """What stands under a depth axis."""
    return "depth [layers applied]" if axis == "depth" else "layer"


def quantity_title(variable: xr.DataArray, width: int = 34) -> str:
    """The variable's long name and units, escaped, in lines of at most so many characters."""
    return "<br>".join(escaped(line) for line in textwrap.wrap(quantity_text(variable), width))


def quantity_text(variable: xr.DataArray) -> str:
    """The variable's long name and units as a person reads them; pure numbers show no unit."""
    name = str(variable.attrs.get("long_name", variable.name or ""))
    units = str(variable.attrs.get("units", "1"))
    return name if units == "1" else f"{name} [{units}]"


def depth_ticks(last: float | int, wanted: int = 13) -> dict[str, Any]:
    """Whole-numbered ticks from 0 to a depth, about as many as wanted."""
    steps = (1, 2, 4, 5, 10, 20, 25, 50, 100)
    step = next((step for step in steps if last / step < wanted), 200)
    return {"tick0": 0, "dtick": step, "tickformat": "d"}


def escaped(text: str) -> str:
    """Text that plotly shows exactly, with stand-ins for what cannot be seen."""
    return inert(visible(text, blanks=False))


def inert(text: str) -> str:
    """Text without meaning to plotly, whose labels know tags, entities and `%{...}` templates."""
    return html.escape(text, quote=False).replace("%{", "%&#123;")


def plain(text: object) -> str:
    """A coordinate's text as a person reads it, not yet safe for a page.

    Coordinates hold the stored form (JSON escapes); text that is not in that form is taken as it is.
    """
    try:
        return visible(restored(str(text)), blanks=False)
    except json.JSONDecodeError:
        return visible(str(text), blanks=False)


def label(text: object, width: int = 0) -> str:
    """A coordinate's text, ready for tick text, legends, hover and titles, in lines of `width` if wanted."""
    lines = textwrap.wrap(plain(text), width, break_on_hyphens=False) if width else [plain(text)]
    return "<br>".join(map(inert, lines))


def shortened(text: str, length: int = 60) -> str:
    """A text's beginning, cut with an ellipsis. Cut before escaping, never after."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def token_label(token: object, *, starred: bool = False) -> str:
    """One stored token with visible blanks, escaped, starred where it was noised."""
    try:
        text = restored(str(token))
    except json.JSONDecodeError:
        text = str(token)
    shown = inert(shortened(visible(text), 32))
    return f"{shown} {STAR}" if starred else shown


def token_ticks(tokens: Sequence[object], starred: Iterable[int] = ()) -> dict[str, Any]:
    """A numeric axis whose ticks are tokens: as categories, repeated tokens would merge."""
    stars = set(starred)
    return {
        "tickmode": "array",
        "tickvals": list(range(len(tokens))),
        "ticktext": [token_label(token, starred=place in stars) for place, token in enumerate(tokens)],
    }
