"""Parts of a stage, laid one after another in item order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from layerscope.results.schema import GROWS


def concatenate(parts: Sequence[xr.Dataset], *, along: Sequence[str] = GROWS) -> xr.Dataset:
    """One Dataset from the parts of a stage.

    Variables with a dimension that grows are joined along it; all others (depths, layers, units)
    must be the same in every part. Order is the order of `parts`, so the result does not depend
    on which part was finished first.

    Raises:
        ValueError: two parts disagree about something that does not grow (an experiment's mistake).
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    return xr.Dataset(
        {name: _joined(parts, str(name), along) for name in first.data_vars},
        coords={name: _joined(parts, str(name), along) for name in first.coords},
        attrs=first.attrs,
    )


def _joined(parts: Sequence[xr.Dataset], name: str, along: Sequence[str]) -> xr.Variable:
    variables = [part.variables[name] for part in parts]
    growing = [dimension for dimension in variables[0].dims if dimension in along]
    if len(growing) > 1:
        raise ValueError(f"{name} grows along {growing}: a variable may grow along one dimension only")
    if growing:
        axis = variables[0].dims.index(growing[0])
        values = np.concatenate([variable.values for variable in variables], axis=axis)
        return xr.Variable(variables[0].dims, values, variables[0].attrs)
    for other in variables[1:]:
        if not _equal(variables[0], other):
            raise ValueError(f"{name} differs between parts although none of its dimensions grows ({along})")
    return variables[0]


def _equal(a: xr.Variable, b: xr.Variable) -> bool:
    same_kind = a.dtype.kind == "f" and b.dtype.kind == "f"
    return a.dims == b.dims and bool(np.array_equal(a.values, b.values, equal_nan=same_kind))
