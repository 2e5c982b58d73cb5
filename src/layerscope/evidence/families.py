"""Quantities that are laid side by side, and p that count all tests of a family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import text_coordinate
from layerscope.maths.permutation import holm
from layerscope.results.schema import quantity


def with_p(
    name: str, dims: Iterable[str | Any], p: Any, least: Any, what: str, called: str = ""
) -> dict[str, xr.Variable]:
    """`name_p_adjusted` (or what it is called) and `name_least_p`: a p and the smallest that could have come out."""
    over = [str(dim) for dim in dims]
    return {
        called or f"{name}_p_adjusted": quantity(p, over, what),
        f"{name}_least_p": quantity(least, over, "smallest adjusted p that was possible"),
    }


def holm_over(found: xr.Dataset, *names: str, along: str = "") -> xr.Dataset:
    """p of several tests made into p adjusted for all of them, by Holm's method.

    Each p was right for its own cells; the smallest that is possible grows by the number of tests.

    Args:
        found: with `name_p_adjusted` and `name_least_p`.
        names: variables whose cells are one family together.
        along: a dimension whose places are the family, each of the other cells having its own.
    """
    if along:
        return found.assign(dict(part for name in names for part in _holm_along(found, name, along).items()))
    columns = [f"{name}_p_adjusted" for name in names]
    flat = np.concatenate([found[column].values.ravel() for column in columns])
    adjusted, known = holm(flat), int(np.isfinite(flat).sum())
    sizes = np.cumsum([found[column].size for column in columns])[:-1]
    written = {}
    for name, column, values in zip(names, columns, np.split(adjusted, sizes), strict=True):
        old, least = found[column], found[f"{name}_least_p"]
        written[column] = _by_holm(old, values.reshape(old.shape))
        written[f"{name}_least_p"] = least.copy(data=np.minimum(1, least.values * known))
    return found.assign(written)


def _holm_along(found: xr.Dataset, name: str, dimension: str) -> dict[str, xr.DataArray]:
    old, least = found[f"{name}_p_adjusted"], found[f"{name}_least_p"]
    rows = old.transpose(..., dimension)
    adjusted = np.apply_along_axis(holm, -1, rows.values)
    family = rows.notnull().sum(dimension)
    return {
        f"{name}_p_adjusted": _by_holm(old, rows.copy(data=adjusted).transpose(*old.dims).values),
        f"{name}_least_p": (least * family).clip(max=1).transpose(*old.dims).assign_attrs(least.attrs),
    }


def _by_holm(p: xr.DataArray, adjusted: np.ndarray) -> xr.DataArray:
    return p.copy(data=adjusted).assign_attrs(long_name=f"{p.attrs['long_name']}, by Holm's method")


def side_by_side(parts: Mapping[str, xr.Dataset], dimension: str, long_name: str) -> xr.Dataset:
    """Quantities of several kinds laid along a new dimension, whose labels are their names."""
    found = xr.concat(
        list(parts.values()),
        dim=dimension,
        data_vars="all",
        coords="minimal",
        compat="override",
        join="exact",
    )
    return found.assign_coords({dimension: text_coordinate(list(parts), dimension, long_name)})


def labelled(name: str, labels: Iterable[str], long_name: str) -> dict[str, xr.Variable]:
    """A coordinate of labels, in stored form, ready to be assigned."""
    return {name: text_coordinate(list(labels), name, long_name)}
