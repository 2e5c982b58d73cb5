"""Names, dimensions and units that travel with an array, so that formulas need not be told them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr


def named(
    values: Any,
    name: str,
    long_name: str = "",
    units: str = "",
    *,
    dims: Sequence[str] = (),
) -> xr.DataArray:
    """An array that knows what it is: name, what a person calls it, unit.

    Args:
        values: an array with dimensions; or a plain array or tensor, for which `dims` names them.
        name: of the variable in a result.
        long_name: becomes the axis title of figures; by default what the array has already.
        units: "1" for pure numbers, "layer", "nat", ...; by default what the array has already, or "1".
        dims: of a plain array, in order.
    """
    if not isinstance(values, xr.DataArray):
        plain = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
        values = xr.DataArray(plain, dims=tuple(dims))
    elif dims:
        raise ValueError(f"{name} has dimensions already: {values.dims}")
    attributes = {
        "long_name": long_name or values.attrs.get("long_name", name),
        "units": units or values.attrs.get("units", "1"),
    }
    found: xr.DataArray = values.rename(name)
    return found.drop_attrs(deep=False).assign_attrs(attributes)


def name_of(values: xr.DataArray) -> str:
    """The name of an array that has a long name too, which variables and axes are called after."""
    if values.name is None or "long_name" not in values.attrs:
        raise ValueError("expected an array with a name and a long name: named(values, name, long_name)")
    return str(values.name)


def samples(*arrays: xr.DataArray, **coordinates: xr.Variable) -> xr.Dataset:
    """What `measure` gives: named arrays over shared coordinates, averaged over nothing."""
    return xr.Dataset({str(one.name): one.variable for one in arrays}, coords=coordinates)


def along(dimension: str, formula: Callable[..., Any], *arrays: xr.DataArray) -> xr.DataArray:
    """A formula of maths/ that works along the last axis, applied along a named dimension.

    The dimension stays where the formula gives one value for each of its places (a running sum), and goes
    where it gives one in all (a centroid). Give the result its name with `named`.
    """
    spread = xr.broadcast(*arrays) if len(arrays) > 1 else arrays
    moved = [one.transpose(..., dimension) for one in spread]
    found = np.asarray(formula(*(one.values for one in moved)))
    like = moved[0] if found.shape == moved[0].shape else moved[0].isel({dimension: 0}, drop=True)
    return xr.DataArray(found, dims=like.dims, coords=like.coords)


def cell_by_cell(formula: Callable[..., Any], *arrays: xr.DataArray) -> xr.DataArray:
    """A formula of maths/ applied to arrays cell by cell; dimensions are matched by name."""
    found: xr.DataArray = xr.apply_ufunc(formula, *arrays)
    return found
