"""The layer map: measures by layers as one strip of colour, as plain values for the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import xarray as xr

from layerscope.atlas.layers import Layers
from layerscope.evidence.wording import interval, measured


@dataclass(frozen=True)
class Cell:
    """One layer in one measure.

    Attributes:
        layer: its number.
        shade: from 0 to 100, where it lies between the row's lowest and highest value; None where it is unknown.
        stands_out: from the other layers, the null and the twins.
        said: the value and what it was held against, in words.
    """

    layer: int
    shade: int | None
    stands_out: bool
    said: str


@dataclass(frozen=True)
class Row:
    """One measure.

    Attributes:
        measure: its name in the data.
        label: at most six words.
        sense: what a large value means.
        most: the largest value and its layer.
        anchor: of the section that it comes from; empty where the page has none.
        cells: one for each layer.
    """

    measure: str
    label: str
    sense: str
    most: str
    anchor: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class LayerMap:
    """All measures of one model.

    Attributes:
        groups: of questions, each with its rows.
        layers: how many.
        phases: how many layers each has, and where it begins, with an interval; empty where there are none.
    """

    groups: tuple[tuple[str, tuple[Row, ...]], ...]
    layers: int
    phases: tuple[tuple[int, str], ...]

    @property
    def every(self) -> int:
        """Layers are numbered in steps of this, so that numbers do not run into one another."""
        return next(step for step in (1, 2, 5, 10, 20, 50) if self.layers / step <= 14)


def layer_map(layers: Layers, anchors: Mapping[str, str]) -> LayerMap:
    """The map of one model.

    Args:
        layers: the atlas of the model.
        anchors: of the page's sections, by experiment.
    """
    every = (layers.data.isel(measure=place) for place in range(layers.data.sizes["measure"]))
    known = (row for row in every if np.isfinite(row.value).any())  # a row without a value says nothing
    rows = [(str(row.group.values), _row(row, anchors)) for row in known]
    groups = tuple(
        (group.capitalize(), tuple(row for _, row in same))
        for group, same in groupby(rows, key=lambda pair: pair[0])
    )
    return LayerMap(groups, layers.number, tuple(_phases(layers)))


def _phases(layers: Layers) -> Iterator[tuple[int, str]]:
    begins = layers.phases.begins
    for number, (first, last) in enumerate(layers.phases.bounds):
        ends = f" ({int(begins.low[number - 1])} to {int(begins.high[number - 1])})" if number else ""
        yield last - first + 1, f"from {first}{ends}"


def _row(row: xr.Dataset, anchors: Mapping[str, str]) -> Row:
    value, unit = row.value.values, str(row.unit.values)
    least, most = np.nanmin(value), np.nanmax(value)
    shades = (value - least) / (most - least) if most > least else np.where(np.isfinite(value), 0.5, np.nan)
    at = int(np.nanargmax(value))
    cells = tuple(
        Cell(
            layer,
            None if np.isnan(shade) else round(100 * float(shade)),
            bool(row.stands_out.values[layer]),
            _said(row, layer, unit),
        )
        for layer, shade in enumerate(shades)
    )
    return Row(
        measure=str(row.measure.values),
        label=str(row.label.values),
        sense=str(row.sense.values),
        most=f"{measured_of(row, at)} at {at}",
        anchor=anchors.get(str(row.experiment.values), ""),
        cells=cells,
    )


def measured_of(row: xr.Dataset, layer: int) -> str:
    """A measure's value in a layer with its unit, its digits by the interval."""
    value, low, high = (float(row[name].values[layer]) for name in ("value", "low", "high"))
    return measured(value, str(row.unit.values), low, high) if np.isfinite(value) else "unknown"


def _said(row: xr.Dataset, layer: int, unit: str) -> str:
    low, high, apart = (float(row[name].values[layer]) for name in ("low", "high", "apart"))
    value = float(row.value.values[layer])
    ends = interval(unit, low, high, 0.95)
    others = f"other layers {measured(value - apart, unit, low, high)}" if np.isfinite(apart) else ""
    out = "stands out" if row.stands_out.values[layer] else ""
    more = "; ".join(part for part in (others, out) if part)
    return f"layer {layer}: {measured_of(row, layer)}{f' ({ends})' * bool(ends)}{f'; {more}' * bool(more)}"
