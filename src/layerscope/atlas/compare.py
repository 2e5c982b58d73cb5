"""Several models side by side: headline indices, curves on the fraction of depth, and how their layers align."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from layerscope.atlas.indices import IN_DEPTH, Index, indices_of
from layerscope.atlas.layers import Layers, layers_of_each
from layerscope.errors import LayerscopeError
from layerscope.evidence import text_coordinate
from layerscope.evidence.wording import ends, interval, measured
from layerscope.maths.interval_difference import difference_of_intervals
from layerscope.maths.stretch import stretch
from layerscope.results.notebook import as_html
from layerscope.results.schema import quantity

POINTS = 41
"""Places on the fraction of depth at which curves are read."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models side by side; the first is the one that differences are taken from.

    Attributes:
        models: in the order given.
        indices: `value`, `low`, `high` [index model]; `difference`, `difference_low`, `difference_high` [index model],
            of each model less the first; `untrained_low`, `untrained_high`: the range of each model's twins. NaN where
            a model has no such index.
        curves: `value`, `low`, `high` [measure model fraction], of the measures that all models have.
        stretches: `stretch`, `stretch_low`, `stretch_high` [model]: the factor by which layers of the first must be
            multiplied for its curves to lie on the model's, and `by_fraction`, the ratio of their numbers of layers.
        each: all measures of each model.
    """

    models: tuple[str, ...]
    indices: xr.Dataset
    curves: xr.Dataset
    stretches: xr.Dataset
    each: tuple[Layers, ...]

    def lines(self) -> Iterator[str]:
        """Everything in words, index by index; then the stretch."""
        for place, label in enumerate(self.indices.label.values):
            yield str(label)
            for model, name in enumerate(self.models):
                value, apart, _ = self.in_words(place, model)
                difference = f"; difference from {self.models[0]}: {apart}" if value and apart else ""
                yield f"  {name}: {value or 'not measured'}{difference}"
        for model in range(1, len(self.models)):
            yield self.aligned(model)

    def in_words(self, index: int, model: int) -> tuple[str, str, bool]:
        """An index of a model, its difference from the first model's (empty where unknown), whether that excludes 0."""
        cell = self.indices.isel(index=index, model=model)
        value, apart = (_in_words(cell, name, str(cell.unit.values)) for name in ("value", "difference"))
        low, high = float(cell.difference_low), float(cell.difference_high)
        return value, apart, low > 0 or high < 0

    def _repr_html_(self) -> str:
        return as_html(self.lines())

    def __repr__(self) -> str:
        return (
            f"{', '.join(self.models)} compared: {self.indices.sizes['index']} indices; .lines(), .indices, .curves, "
            ".stretches"
        )

    def aligned(self, model: int) -> str:
        """How the layers of the first model lie on those of another, in one sentence."""
        cell = self.stretches.isel(model=model)
        low, high, ratio = (float(cell[name]) for name in ("stretch_low", "stretch_high", "by_fraction"))
        if not np.isfinite(low):
            return f"No stretch aligns the layers of {self.models[0]} with those of {self.models[model]}."
        by = f"by layer number 1, by fraction of depth {ratio:.2g}"
        said = f"{measured(float(cell.stretch), '1', low, high)} ({interval('1', low, high, 0.95)}; {by})"
        pair = f"{self.models[0]} and {self.models[model]}"
        if low <= 1 <= high and low <= ratio <= high:
            return f"Whether layers of {pair} agree by number or by fraction of depth is not decided: factor {said}."
        return f"Layers of {pair} agree best where those of the first are multiplied by {said}."


def _in_words(cell: xr.Dataset, name: str, unit: str) -> str:
    """A number with its interval, and the range of its twins where there are any; empty where it is unknown."""
    start = "" if name == "value" else f"{name}_"
    value, low, high = float(cell[name]), float(cell[f"{start}low"]), float(cell[f"{start}high"])
    if not np.isfinite(value):
        return ""
    shown = "1" if unit == IN_DEPTH else unit
    least, most = float(cell.untrained_low), float(cell.untrained_high)
    twins = f"untrained twins {ends(shown, least, most)}" if name == "value" and np.isfinite(least) else ""
    inside = ", ".join(part for part in (interval(shown, low, high, 0.95), twins) if part)
    return f"{measured(value, shown, low, high)}{' of depth' * (unit == IN_DEPTH)}{f' ({inside})' * bool(inside)}"


def compare(*runs: Any) -> Comparison:
    """Headline indices, curves and alignment of several models, from saved runs.

    Args:
        runs: what `layers` takes or gives, or a folder that holds runs of several models; checkpoints in their order.

    Returns:
        `Comparison`, with the first model as the reference.

    Raises:
        LayerscopeError: fewer than two models, or two of them have no experiment in common.
    """
    models = [
        one for given in runs for one in ([given] if isinstance(given, Layers) else layers_of_each(given))
    ]
    if len(models) < 2:
        raise LayerscopeError(
            "there is nothing to compare with",
            found=", ".join(one.model for one in models) or "no model",
            expected="runs of two models or more",
            hint="layerscope compare RUNS_OF_ONE RUNS_OF_ANOTHER",
        )
    names = _names([one.model for one in models])
    return Comparison(
        models=names,
        indices=_indices(models, names),
        curves=_curves(models, names),
        stretches=_stretches(models, names),
        each=tuple(models),
    )


def _names(models: Sequence[str]) -> tuple[str, ...]:
    """Names of models, numbered where two are the same: checkpoints of one."""
    again = {name for name in models if models.count(name) > 1}
    return tuple(f"{name} ({place})" if name in again else name for place, name in enumerate(models, start=1))


# -- indices -----------------------------------------------------------------------------------------


def _indices(models: Sequence[Layers], names: Sequence[str]) -> xr.Dataset:
    each = [_of_the_model(one) for one in models]
    both = [(one, _of_twins(model)) for one, model in zip(each, models, strict=True)]
    known = dict.fromkeys(name for one in each for name in one)
    first = {name: next(one[name] for one in each if name in one) for name in known}
    shown = [name for name in known if sum(name in one for one in each) > 1]
    rows = [
        [_cells(one.get(name), each[0].get(name), untrained.get(name, [])) for one, untrained in both]
        for name in shown
    ]
    cells = np.reshape(rows, (len(shown), len(models), len(_COLUMNS)))
    found = {
        key: quantity(cells[..., place], "index model", what)
        for place, (key, what) in enumerate(_COLUMNS.items())
    }
    coordinates = {
        "index": text_coordinate(shown, "index", "headline index"),
        "model": text_coordinate(list(names), "model", "model"),
        "label": ("index", [first[name].label for name in shown]),
        "unit": ("index", [first[name].unit for name in shown]),
    }
    return xr.Dataset(found, coordinates)


_COLUMNS = {
    "value": "headline index",
    "low": "headline index, lower end",
    "high": "headline index, upper end",
    "difference": "difference from the first model",
    "difference_low": "difference from the first model, lower end",
    "difference_high": "difference from the first model, upper end",
    "untrained_low": "least of the untrained twins",
    "untrained_high": "largest of the untrained twins",
}
_UNKNOWN = (float("nan"),) * 3


def _cells(index: Index | None, reference: Index | None, twins: Sequence[float]) -> list[float]:
    """One model's row of an index, in the order of _COLUMNS; the reference is not held against itself."""
    own, other = (_UNKNOWN if one is None else one.with_ends for one in (index, reference))
    apart = _UNKNOWN if index is reference else difference_of_intervals(own, other)
    return [*own, *apart, min(twins, default=np.nan), max(twins, default=np.nan)]


def _of_the_model(model: Layers) -> dict[str, Index]:
    return indices_of({part.experiment: part.result for part in model.parts if part.result is not None})


def _of_twins(model: Layers) -> dict[str, list[float]]:
    """What untrained twins have of each index, by its name."""
    found: dict[str, list[float]] = {}
    for part in model.parts:
        for twin in part.twins.values():
            for index in indices_of({part.experiment: twin}).values():
                found.setdefault(index.name, []).extend([index.value] if np.isfinite(index.value) else [])
    return found


# -- curves ------------------------------------------------------------------------------------------


def _common(models: Sequence[Layers]) -> list[str]:
    shared = set.intersection(*({str(one) for one in model.data.measure.values} for model in models))
    if not shared:
        raise LayerscopeError(
            "these models have no measure in common",
            found="; ".join(
                f"{one.model}: {', '.join(part.experiment for part in one.parts)}" for one in models
            ),
            expected="the same experiment on each",
            hint="layerscope report --model MODEL runs all of them",
        )
    return [str(name) for name in models[0].data.measure.values if str(name) in shared]


def _curves(models: Sequence[Layers], names: Sequence[str]) -> xr.Dataset:
    """Curves read by straight lines at POINTS fractions: a layer stands at the middle of its stretch of depth."""
    fractions, shared = np.linspace(0, 1, POINTS), _common(models)

    def read(model: Layers, column: str) -> np.ndarray:
        rows = model.data[column].sel(measure=shared).values
        at = (np.arange(model.number) + 0.5) / model.number
        inside = (fractions >= at[0]) & (fractions <= at[-1])
        return np.where(inside, np.stack([np.interp(fractions, at, row) for row in rows]), np.nan)

    found = {
        column: quantity(
            np.stack([read(model, column) for model in models], axis=1),
            "measure model fraction",
            f"measure, {column}",
        )
        for column in ("value", "low", "high")
    }
    fraction = xr.Variable("fraction", fractions, {"long_name": "fraction of depth", "units": "1"})
    coordinates: Mapping[str, Any] = {
        "measure": text_coordinate(shared, "measure", "measure"),
        "model": text_coordinate(list(names), "model", "model"),
        "fraction": fraction,
    }
    return xr.Dataset(found, coordinates)


# -- alignment ---------------------------------------------------------------------------------------


def _stretches(models: Sequence[Layers], names: Sequence[str]) -> xr.Dataset:
    rows = [_stretch(models[0], one) for one in models]
    found = {
        name: quantity(np.array(column), "model", what)
        for name, column, what in zip(
            ("stretch", "stretch_low", "stretch_high"),
            zip(*rows, strict=True),
            ("factor from layers of the first model to this one's", "factor, lower end", "factor, upper end"),
            strict=True,
        )
    }
    ratio = [one.number / models[0].number for one in models]
    found["by_fraction"] = quantity(ratio, "model", "ratio of numbers of layers")
    return xr.Dataset(found, {"model": text_coordinate(list(names), "model", "model")})


def _stretch(first: Layers, second: Layers) -> tuple[float, float, float]:
    """The factor, and its percentile interval over replicates of both; first and last layers are left out."""
    shared = [
        name
        for name in _common([first, second])
        if all(np.isfinite(one.data.draws.sel(measure=name)).all() for one in (first, second))
    ]
    nan = float("nan")
    if not shared:
        return nan, nan, nan
    one, other = (model.data.sel(measure=shared).isel(layer=slice(1, -1)) for model in (first, second))
    groups = one.group.values
    weights = np.array([1 / (groups == group).sum() for group in groups])
    found = float(stretch(one.value.values, other.value.values, weights))
    draws = slice(min(one.sizes["draw"], other.sizes["draw"]))
    ours, theirs = (
        model.draws.isel(draw=draws).transpose("draw", "measure", "layer").values for model in (one, other)
    )
    again = stretch(ours, theirs, weights)
    known = again[np.isfinite(again)]
    if not np.isfinite(found) or not len(known):
        return nan, nan, nan
    low, high = np.quantile(known, [0.025, 0.975])
    return found, min(found, float(low)), max(found, float(high))
