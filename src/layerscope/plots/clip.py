"""An axis for all places but one: the one that would flatten the others is written at its edge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from plotly.graph_objects import Figure

from layerscope.plots.axes import escaped, last_place, places
from layerscope.plots.numbers import number
from layerscope.plots.theme import NEUTRAL

_SHARE = 0.5
_ROOM, _STRIP = 0.06, 0.14
"""Shares of the height that stay free: at an edge, and at one that holds a line of text."""
_DRAWN = ("value", "low", "high", "null")
_UNITS = {"nat": "nats"}


@dataclass(frozen=True)
class FarPlace:
    """A place that lies so far from all others that they would take less than half of the axis.

    Attributes:
        index: along layer or depth.
        low, high: ends of all others, intervals included, in the axis's own terms: powers of ten on a log axis.
        log: whether they are that.
    """

    index: int
    low: float
    high: float
    log: bool


def far_place(values: xr.Dataset, axis: str, *, log: bool = False) -> FarPlace | None:
    """The place that would flatten all others, if there is one.

    Args:
        values: `value`, and where known `low`, `high`, `null`, over `axis` and others.
        axis: layer or depth.
        log: whether the height is logarithmic; then what is not above 0 is not looked at.
    """
    low, high = _ends(values, axis, log)
    known = np.flatnonzero(np.isfinite(low))
    if known.size < 3:
        return None
    rests = {place: known[known != place] for place in known}
    far = min(known, key=lambda place: high[rests[place]].max() - low[rests[place]].min())
    bottom, top = float(low[rests[far]].min()), float(high[rests[far]].max())
    flat = top - bottom < _SHARE * float(high[known].max() - low[known].min())
    return FarPlace(int(far), bottom, top, log) if flat and top > bottom else None


def clip(figure: Figure, values: xr.Dataset, axis: str, far: FarPlace) -> None:
    """End the axis of height where the other places do; lines run off it, and their values stand where they leave.

    Args:
        figure: of these values, one panel.
        values: as for `far_place`.
        axis: layer or depth.
        far: what it found.
    """
    at, unit = float(places(values, axis)[far.index]), far.high - far.low
    left = 2 * at < last_place(values, axis)
    leaving = dict(_leaving(values["value"].isel({axis: far.index}), f"{axis} {at:g}", far))
    room = [(_STRIP if edge in leaving else _ROOM) * unit for edge in (0, 1)]
    figure.update_yaxes(range=[far.low - room[0], far.high + room[1]])
    for edge, said in leaving.items():
        figure.add_annotation(
            text=said,
            font={"size": 11, "color": NEUTRAL},
            x=at + (1 if left else -1),
            xref="x",
            xanchor="left" if left else "right",
            xshift=4 if left else -4,
            y=edge,
            yref="paper",
            yanchor="top" if edge else "bottom",
        )


def _ends(values: xr.Dataset, axis: str, log: bool) -> np.ndarray:
    """Least and most of each place, intervals included, in the axis's own terms; NaN where nothing is drawn."""
    drawn = [values[name].transpose(axis, ...) for name in _DRAWN if name in values]
    flat = np.concatenate([one.values.reshape(one.sizes[axis], -1) for one in drawn], axis=1).astype(float)
    if log:
        flat = np.log10(np.where(flat > 0, flat, np.nan))
    return np.stack([np.fmin.reduce(flat, axis=1), np.fmax.reduce(flat, axis=1)])


def _leaving(there: xr.DataArray, where: str, far: FarPlace) -> Iterator[tuple[int, str]]:
    """The edges by which lines leave the panel, 1 the upper one, and what is written there."""
    values, units = there.values.ravel(), str(there.attrs.get("units", "1"))
    low, high = (10**end if far.log else end for end in (far.low, far.high))
    unit = "" if units == "1" else f" {_UNITS.get(units, units)}"
    for edge, arrow, beyond in ((0, "↓", values[values < low]), (1, "↑", values[values > high])):
        if beyond.size:
            said = " to ".join(dict.fromkeys(number(float(one)) for one in (beyond.min(), beyond.max())))
            yield edge, escaped(f"{arrow} {where}: {said}{unit}")
