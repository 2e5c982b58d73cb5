"""Intervals and contrasts as variables of a result, named alike in every experiment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import text_coordinate
from layerscope.maths.bootstrap import Interval
from layerscope.maths.permutation import Contrast
from layerscope.results.schema import quantity


def interval_variables(
    name: str, interval: Interval, dims: str | Iterable[str], long_name: str, units: str = "1"
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
