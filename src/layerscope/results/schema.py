"""What every result promises: named dimensions, quantities with a long name and a unit.

The promises let pictures, tables and the report work on a result without knowing which
experiment made it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from layerscope.errors import LayerscopeError

SCHEMA = 1
"""Goes up when a run folder written by this version could be misread by an older one."""

DIMENSIONS = {
    "prompt": "one prompt, by name",
    "passage": "one passage, by name",
    "sentence": "one sentence of a treebank, by name",
    "word": "every word of every text, or of a list, one after another",
    "token": "every token of every text, one after another, with coordinates that say whose and where",
    "layer": "a layer, counted from 0",
    "depth": "layers already applied: 0 = embeddings, n_layers = after the last layer",
    "head": "a query head of a layer",
    "kv_head": "a key/value head of a layer",
    "sample": "one noise draw or repeat",
    "category": "a category of texts",
    "contrast": "a pair of categories, first less second",
    "row": "a row of a causal trace: the corrupted token, the last token, other tokens",
    "site": "a place in a layer that is read or edited",
    "statistic": "a named number",
}

GROWS = ("prompt", "passage", "sentence", "word", "token")
"""Dimensions along which the parts of a stage are laid one after another."""


def check_promises(dataset: xr.Dataset, *, where: str) -> xr.Dataset:
    """Return the dataset unchanged if it keeps the promises; otherwise say which is broken.

    Every variable carries `long_name` and `units`; every dimension is in DIMENSIONS or has a
    coordinate along it alone whose `long_name` says what its entries are; every attribute can be
    written to netCDF.
    """
    told = {
        coord.dims[0] for coord in dataset.coords.values() if coord.ndim == 1 and "long_name" in coord.attrs
    }
    for name, variable in dataset.data_vars.items():
        for needed in ("long_name", "units"):
            if needed not in variable.attrs:
                _refuse(
                    where, f"variable {name} without {needed}", "both long_name and units on every variable"
                )
    for dimension in dataset.dims:
        if dimension not in DIMENSIONS and dimension not in told:
            _refuse(
                where,
                f"dimension {dimension}",
                "a name from results/schema.py, or a coordinate with long_name",
            )
    _check_attributes(dataset, where)
    return dataset


def _check_attributes(dataset: xr.Dataset, where: str) -> None:
    everything = [dataset.attrs, *(variable.attrs for variable in dataset.variables.values())]
    for attributes in everything:
        for name, value in attributes.items():
            if not isinstance(value, str | int | float | np.integer | np.floating) or isinstance(value, bool):
                _refuse(
                    where,
                    f"attribute {name} of type {type(value).__name__}",
                    "text or a number (write_json helps)",
                )


def _refuse(where: str, found: str, expected: str) -> None:
    raise LayerscopeError(
        f"{where} breaks a promise of results",
        found=found,
        expected=expected,
        hint="mend the experiment's file",
    )


def quantity(values: Any, dims: str | Iterable[str], long_name: str, units: str = "1") -> xr.Variable:
    """A variable that keeps its promises.

    Args:
        values: the numbers.
        dims: names of the dimensions, in order; a string is split at blanks.
        long_name: what a person calls it; becomes the axis title of figures.
        units: "1" for pure numbers, "nat", "block", ...
    """
    names = dims.split() if isinstance(dims, str) else list(dims)
    return xr.Variable(names, values, {"long_name": long_name, "units": units})


def write_json(dataset: xr.Dataset, **attributes: Any) -> xr.Dataset:
    """Attributes that netCDF cannot hold (lists, dictionaries, None), as JSON text."""
    return dataset.assign_attrs({name: json.dumps(value) for name, value in attributes.items()})


def read_json(dataset: xr.Dataset, name: str, default: Any = None) -> Any:
    """An attribute that `write_json` wrote."""
    return json.loads(dataset.attrs[name]) if name in dataset.attrs else default


def said_of_itself(result: xr.Dataset, name: str) -> str:
    """An attribute that every saved or returned result carries: `experiment`, `model`, `settings`, `asked`.

    Raises:
        LayerscopeError: a dataset without it, which no experiment made.
    """
    if name not in result.attrs:
        raise LayerscopeError(
            "this dataset does not say which experiment made it",
            found=f"attributes {', '.join(map(str, result.attrs)) or '(none)'}",
            expected="a result of layerscope.run, or one read from a run folder",
            hint="layerscope.open_run(FOLDER).result()",
        )
    return str(result.attrs[name])
