"""Intervals and contrasts as variables of a result, named alike in every experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments._contract import Claim
from layerscope.experiments._coordinates import text_coordinate
from layerscope.maths.bootstrap import Interval
from layerscope.maths.permutation import Contrast
from layerscope.results.schema import quantity


def interval_variables(
    name: str, interval: Interval, dims: str, long_name: str, units: str = "1"
) -> dict[str, xr.Variable]:
    """`name`, `name_low`, `name_high` and `name_n` from an interval."""
    return {
        name: quantity(interval.value, dims, long_name, units),
        f"{name}_low": quantity(interval.low, dims, f"{long_name}, lower end", units),
        f"{name}_high": quantity(interval.high, dims, f"{long_name}, upper end", units),
        f"{name}_n": quantity(interval.n, dims, f"{long_name}, number of units", "1"),
    }


def stacked(intervals: Sequence[Interval]) -> Interval:
    """Several intervals as one with a new first axis."""
    return Interval(
        value=np.stack([interval.value for interval in intervals]),
        low=np.stack([interval.low for interval in intervals]),
        high=np.stack([interval.high for interval in intervals]),
        n=np.stack([interval.n for interval in intervals]),
    )


def as_curve(result: xr.Dataset, name: str, *, null: xr.DataArray | None = None) -> xr.Dataset:
    """`value`, `low`, `high` (and `null`) from the variables that `interval_variables` wrote."""
    columns = {"value": result[name], "low": result[f"{name}_low"], "high": result[f"{name}_high"]}
    if null is not None:
        columns["null"] = null
    return xr.Dataset({column: values.reset_coords(drop=True) for column, values in columns.items()})


def contrast_variables(contrasts: Sequence[Contrast], long_name: str, units: str) -> xr.Dataset:
    """Pairs of categories with difference, interval, p and adjusted p, along a `contrast` dimension."""

    def column(attribute: str, what: str, unit: str) -> xr.Variable:
        return quantity(np.array([getattr(c, attribute) for c in contrasts]), "contrast", what, unit)

    return xr.Dataset(
        {
            "difference": column("difference", f"difference in {long_name}", units),
            "difference_low": column("low", "lower end of the interval", units),
            "difference_high": column("high", "upper end of the interval", units),
            "p": column("p", "two-sided permutation p of this pair", "1"),
            "p_adjusted": column("p_adjusted", "p by Holm's method over all pairs", "1"),
            "contrast_n": quantity(
                np.array([min(c.n_a, c.n_b) for c in contrasts], dtype=np.int64),
                "contrast",
                "smaller group",
                "1",
            ),
        },
        coords={
            "contrast": text_coordinate(
                [f"{c.a} − {c.b}" for c in contrasts], "contrast", "pair of categories"
            ),
            "contrast_first": text_coordinate([c.a for c in contrasts], "contrast", "first category"),
            "contrast_second": text_coordinate([c.b for c in contrasts], "contrast", "second category"),
        },
    )


def at_depths(depths: Sequence[int]) -> str:
    """Depths in words: "at depth 3", "at depths 0 and 1", "at depths 2 to 6 and 11"."""
    return f"at {places_in_words(depths, 'depth')}"


def places_in_words(places: Sequence[int], unit: str) -> str:
    """Depths or layers with their unit: "layer 3", "layers 0 and 1", "layers 2 to 6 and 11"."""
    runs = np.split(np.asarray(places), np.flatnonzero(np.diff(places) > 1) + 1)
    if len(runs) == 1 and len(places) == 2:
        return f"{unit}s {places[0]} and {places[1]}"
    said = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    listed = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return f"{unit}{'s' * (len(places) > 1)} {listed}"


def number_or_none(value: float | np.ndarray | xr.DataArray) -> float | None:
    """A single number for a claim; None where it is not known."""
    number = float(value)
    return None if np.isnan(number) else number


def interval_claim(
    text: str, values: xr.Dataset, name: str, select: dict[str, Any], caveat: str = ""
) -> Claim:
    """A sentence with the value and ends that `interval_variables` wrote, and where they stand in the result."""
    return Claim(
        text=text,
        value=number_or_none(values[name]),
        low=number_or_none(values[f"{name}_low"]),
        high=number_or_none(values[f"{name}_high"]),
        caveat=caveat,
        select={"variable": name, **select},
    )
