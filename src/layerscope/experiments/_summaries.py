"""What flat files still import by this name: most of it lies in `layerscope.evidence`. Goes with the last of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence.curves import as_curve
from layerscope.evidence.places import at_depths, places_in_words
from layerscope.evidence.quantities import contrast_variables, interval_variables, stacked

__all__ = [
    "as_curve",
    "at_depths",
    "contrast_variables",
    "interval_claim",
    "interval_variables",
    "number_or_none",
    "places_in_words",
    "stacked",
]


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
