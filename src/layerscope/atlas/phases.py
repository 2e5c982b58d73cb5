"""Stretches of layers that behave alike in all measures together, if there are any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from layerscope.evidence import places_in_words
from layerscope.evidence.wording import counted, sentence
from layerscope.maths.bootstrap import Interval
from layerscope.maths.change_points import phases_in_resamples, standardised

_FEWEST_LAYERS = 4
_SURE = 0.95
_MOST_CHANGES = 3


@dataclass(frozen=True, eq=False)
class Stretches:
    """Phases of one model over all measures.

    Attributes:
        layers: number of layers.
        begins: layers at which a phase begins, the first left out, with the ends of their intervals.
        better: share of resamples in which phases describe the measures better than smooth drift; NaN where nothing
            could be resampled.
        measures: how many measures were used.
        why_none: why there are no phases, where there are none.
    """

    layers: int
    begins: Interval
    better: float
    measures: int
    why_none: str = ""

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First and last layer of each phase; empty where there are none."""
        if self.why_none:
            return []
        starts = [0, *(int(one) for one in self.begins.value)]
        return list(zip(starts, [one - 1 for one in starts[1:]] + [self.layers - 1], strict=True))

    def of(self, layer: int) -> str:
        """The phase that a layer lies in, in words; empty where there are no phases."""
        for number, (first, last) in enumerate(self.bounds, start=1):
            if first <= layer <= last:
                where = places_in_words(range(first, last + 1), "layer")
                return sentence(f"phase {number} of {len(self.bounds)}: {where}")
        return ""

    def said(self) -> str:
        """All phases in one sentence, with the intervals of where they begin; or that there are none, and why."""
        if self.why_none:
            return sentence(f"no phases: {self.why_none}")
        each = [
            f"layer {int(value)} ({int(low)} to {int(high)})"
            for value, low, high in zip(self.begins.value, self.begins.low, self.begins.high, strict=True)
        ]
        return sentence(
            f"layers fall into {len(self.bounds)} phases, which begin at layer 0, {', '.join(each)}",
            f"95% CI over texts, {counted((self.measures,), 'measures')}",
            f"better than smooth drift in {100 * self.better:.0f}% of resamples",
        )


def stretches(data: xr.Dataset) -> Stretches:
    """Phases by all measures that are known in every layer and were resampled, groups of questions weighing equally.

    Each measure is standardised over layers and divided by the root of its group's size; replicate r of one measure
    is laid beside replicate r of the others. There are phases if they beat a line and a parabola in the data and in
    95 % of resamples (`maths/change_points.py`).

    Args:
        data: of `measures.side_by_side`.
    """
    layers = int(data.sizes["layer"])
    used = [
        place
        for place in range(data.sizes["measure"])
        if np.isfinite(data.draws.values[place]).all() and np.isfinite(data.value.values[place]).all()
    ]
    nothing = np.zeros(0)
    none = Interval(nothing, nothing, nothing, nothing.astype(int))
    if layers < _FEWEST_LAYERS or not used:
        why = (
            f"{layers} layers are too few"
            if used
            else "no measure that was resampled is known in every layer"
        )
        return Stretches(layers, none, float("nan"), len(used), why)
    groups = data.group.values[used]
    weight = np.array([1 / np.sqrt((groups == group).sum()) for group in groups])
    found = phases_in_resamples(
        standardised(data.value.values[used].T) * weight,
        standardised(data.draws.values[used].transpose(1, 2, 0)) * weight,
        units=max(2, int(np.nanmin(data.n.values[used]))) if np.isfinite(data.n.values[used]).any() else 2,
        most=min(_MOST_CHANGES, layers // 2 - 1),
    )
    why = ""
    if not found.found.better_than_drift:
        why = "a smooth drift describes the measures as well"
    elif not found.better >= _SURE:
        why = f"phases beat a smooth drift in {100 * found.better:.0f}% of resamples only"
    return Stretches(layers, found.begins, found.better, len(used), why)
