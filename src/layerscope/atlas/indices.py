"""Headline indices: the few numbers of each experiment that compare models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from layerscope import experiments
from layerscope.results.escaping import restored

_PLACES = ("layer", "depth", "head", "stretch")
"""Labels that say where in a model a number was found; they may differ between models."""
_COUNTED_IN_LAYERS = ("layer", "block", "depth")
IN_DEPTH = "fraction of depth"
"""The unit of an index that was counted in layers."""


@dataclass(frozen=True)
class Index:
    """One headline index of one model.

    Attributes:
        name: the experiment, the variable and its labels: the same index of another model has the same name.
        label: what is measured, as the result says it.
        unit: of value, low and high; "fraction of depth" where it was counted in layers.
        value, low, high: the number and its interval.
    """

    name: str
    label: str
    unit: str
    value: float
    low: float
    high: float

    @property
    def with_ends(self) -> tuple[float, float, float]:
        """Value, low and high."""
        return self.value, self.low, self.high


def indices_of(results: Mapping[str, xr.Dataset]) -> dict[str, Index]:
    """Headline indices of one model's results, by name: what its experiments' claims state of their headline variables.

    A number counted in layers becomes a fraction of depth, so that models of several sizes can be compared.
    """
    found = (index for name, result in results.items() for index in _of_one(name, result))
    return {index.name: index for index in found}


def _of_one(name: str, result: xr.Dataset) -> Iterator[Index]:
    experiment = experiments.load(name)
    layers = int(result.sizes.get("layer", result.sizes.get("depth", 1) - 1))
    said: set[str] = set()
    for claim in experiment.claims(result):
        variable = str(claim.select.get("variable", ""))
        if variable not in experiment.headlines or claim.value is None:
            continue
        labels = [
            restored(str(label)) for key, label in claim.select.items() if key not in ("variable", *_PLACES)
        ]
        key = " · ".join([f"{name}.{variable}", *labels])
        if key in said:
            continue
        said.add(key)
        in_depth = result[variable].attrs.get("units") in _COUNTED_IN_LAYERS and layers > 0
        factor = 1 / layers if in_depth else 1.0
        low, high = (np.nan if end is None else end * factor for end in (claim.low, claim.high))
        yield Index(
            name=key,
            label=", ".join([str(result[variable].attrs.get("long_name", variable)), *labels]),
            unit=IN_DEPTH if in_depth else str(result[variable].attrs.get("units", "1")),
            value=claim.value * factor,
            low=low,
            high=high,
        )
