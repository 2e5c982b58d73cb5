"""Curves over layer or depth: for figures, and the measures that the atlas lays together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from layerscope.contract import Group
from layerscope.evidence.coordinates import text_coordinate

_MOST_WORDS = 6
REPLICATES = 200
"""Bootstrap replicates of a whole curve that a result keeps: what resamples over several experiments draw from."""


def as_curve(result: xr.Dataset, name: str, *, null: xr.DataArray | None = None) -> xr.Dataset:
    """`value`, `low`, `high` (and `null`) from the variables that `interval_variables` wrote."""
    columns = {"value": result[name], "low": result[f"{name}_low"], "high": result[f"{name}_high"]}
    if null is not None:
        columns["null"] = null
    return xr.Dataset({column: values.reset_coords(drop=True) for column, values in columns.items()})


def as_variables(curve: xr.Dataset, name: str) -> xr.Dataset:
    """The way back from `as_curve`: `value`, `low` and `high` as the variables of a result."""
    columns = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
    return curve[list(columns)].rename(columns)


def as_rows(curves: Mapping[str, xr.Dataset], long_name: str, units: str = "1") -> xr.Dataset:
    """Curves as the lines of one figure, by their labels."""
    rows = xr.concat(list(curves.values()), dim="row", join="exact", combine_attrs="drop")
    rows = rows.assign_coords(row=text_coordinate(list(curves), "row", "line"))
    rows["value"].attrs = {"long_name": long_name, "units": units}
    return rows


def measure(
    result: xr.Dataset,
    name: str,
    *,
    label: str,
    sense: str,
    questions: Group,
    null: xr.DataArray | float | None = None,
    **labels: Any,
) -> xr.Dataset:
    """One named measure of `over_depth`: a quantity over layer or depth, with all that is known of it.

    Args:
        result: of the experiment.
        name: of the variable, written by `Over`.
        label: at most six words, as a column title: "direct reading, far context".
        sense: what a large value means, in one sentence.
        questions: the group of questions that it belongs to.
        null: what no effect would give, where that is known: an array over the same axis, or one number.
        labels: the cell of the dimensions besides layer or depth.

    Returns:
        `value`, `low`, `high`, `n`, `null` where there is one, and `draws` [draw layer] where the result keeps them
        (not for weights, nor in results of older versions); attributes `name`, `label`, `sense`, `questions`.
    """
    if len(label.split()) > _MOST_WORDS:
        raise ValueError(f"expected a label of at most {_MOST_WORDS} words, found {label!r}")
    columns = {"value": name} | {column: f"{name}_{column}" for column in ("low", "high", "n", "draws")}
    found = xr.Dataset(
        {
            column: result[variable].sel(labels).reset_coords(drop=True)
            for column, variable in columns.items()
            if variable in result
        }
    )
    if null is not None:
        found["null"] = (
            null.reset_coords(drop=True)
            if isinstance(null, xr.DataArray)
            else xr.full_like(found["value"], null)
        )
    return found.drop_vars(labels, errors="ignore").assign_attrs(
        name=name, label=label, sense=sense, questions=questions
    )
