"""The measures of all experiments on one model, laid side by side over layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import numpy as np
import xarray as xr

from layerscope import experiments
from layerscope.contract import Group
from layerscope.errors import LayerscopeError
from layerscope.evidence import text_coordinate
from layerscope.results.schema import quantity

GROUPS: tuple[Group, ...] = get_args(Group)
"""The groups of questions, in the order in which pages show them."""


def columns_of(
    name: str, result: xr.Dataset, twins: Mapping[int, xr.Dataset] | None = None
) -> dict[str, xr.Dataset]:
    """The measures of one result, each as a column of the atlas, by name.

    A measure over depth stands at the layer after which it was taken: depth d at layer d − 1. Depth 0, the
    embeddings, is no layer and is left out. What is not one curve (a plug-in's `over_depth` may hold several) is no
    measure of the atlas.

    Args:
        name: of the experiment.
        result: of one model.
        twins: the same of its untrained twins, by the twin's seed.
    """
    measures = experiments.load(name).over_depth
    of_twins = {seed: measures(twin) for seed, twin in (twins or {}).items()}
    return {
        f"{name}.{key}": _column(
            f"{name}.{key}",
            _over_layers(measured),
            {seed: one[key] for seed, one in of_twins.items() if key in one},
        )
        for key, measured in measures(result).items()
        if _is_a_curve(measured)
    }


def side_by_side(columns: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """All measures of one model as one Dataset over measure and layer.

    Args:
        columns: of `columns_of`, of all experiments.

    Returns:
        `value`, `low`, `high`, `null`, `n` [measure layer], `draws` [measure draw layer] and `untrained` [measure twin
        layer], NaN where a measure has none; coordinates of `measure` say experiment, label, sense, group and unit.

    Raises:
        LayerscopeError: no measure, or measures of models with different numbers of layers.
    """
    if not columns:
        raise LayerscopeError(
            "no result has a measure over layers",
            found="none",
            expected="complete results of experiments that measure layers",
            hint="layerscope run EXPERIMENT --model MODEL, then the folder that it names",
        )
    _same_layers(columns)
    data = xr.concat(
        list(columns.values()),
        "measure",
        join="outer",
        coords="minimal",
        compat="override",
        combine_attrs="drop",
    )
    if "draws" not in data:  # of weights alone
        nothing = np.full((len(columns), 1, data.sizes["layer"]), np.nan)
        data["draws"] = quantity(nothing, "measure draw layer", _SAYS["draws"])
    order = sorted(range(len(columns)), key=lambda place: GROUPS.index(str(data.group.values[place])))
    return data.isel(measure=order)


def _is_a_curve(measured: xr.Dataset) -> bool:
    """One line over layers or depth, made by `evidence.measure`."""
    said = {"label", "sense", "questions"} <= set(measured.attrs)
    return said and "value" in measured and measured["value"].dims in (("layer",), ("depth",))


def _over_layers(measured: xr.Dataset) -> xr.Dataset:
    if "depth" not in measured["value"].dims:
        return measured
    after = measured.isel(depth=slice(1, None))
    return after.assign_coords(depth=after.depth.values - 1).rename(depth="layer")


def _same_layers(found: Mapping[str, xr.Dataset]) -> None:
    numbers = {name: one.sizes["layer"] for name, one in found.items()}
    if len(set(numbers.values())) > 1:
        raise LayerscopeError(
            "these results are not of one model",
            found=", ".join(f"{name}: {number} layers" for name, number in numbers.items()),
            expected="results of one model",
            hint="one call for each model; layerscope.compare for several",
        )


def _column(name: str, measured: xr.Dataset, twins: Mapping[int, xr.Dataset]) -> xr.Dataset:
    """One measure as a row of the atlas, with everything that is known of it."""
    like = measured["value"].transpose("layer")
    layers = like.layer.values if "layer" in like.coords else np.arange(like.size)
    columns = {key: _row(measured, key, like) for key in ("value", "low", "high", "null", "n")}
    found = xr.Dataset(
        {key: quantity(values, "layer", _SAYS[key]) for key, values in columns.items()}, {"layer": layers}
    )
    if "draws" in measured:
        draws = measured["draws"].transpose("draw", "layer").values
        found["draws"] = quantity(draws, "draw layer", _SAYS["draws"])
    if twins:
        of_twins = [_over_layers(one)["value"].transpose("layer").values for one in twins.values()]
        found["untrained"] = quantity(np.stack(of_twins), "twin layer", _SAYS["untrained"])
        found = found.assign_coords(twin=list(twins))
    said = {
        "experiment": name.partition(".")[0],
        "label": str(measured.attrs["label"]),
        "sense": str(measured.attrs["sense"]),
        "group": str(measured.attrs["questions"]),
        "unit": str(like.attrs.get("units", "1")),
        "over": str(like.attrs.get("over", "unit")),
    }
    return found.expand_dims(measure=text_coordinate([name], "measure", "measure")).assign_coords(
        {key: ("measure", [value]) for key, value in said.items()}
    )


def _row(measured: xr.Dataset, key: str, like: xr.DataArray) -> np.ndarray:
    if key not in measured:
        return np.full(like.size, np.nan)
    return np.asarray(measured[key].broadcast_like(like).transpose("layer").values, dtype=float)


_SAYS = {
    "value": "measure",
    "low": "measure, lower end",
    "high": "measure, upper end",
    "null": "measure without an effect",
    "n": "number of units",
    "draws": "measure, bootstrap replicates",
    "untrained": "measure of an untrained twin",
}
