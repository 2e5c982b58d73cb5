"""Quantities as figures."""

from __future__ import annotations

from typing import Any

import xarray as xr

from layerscope.evidence import as_curve
from layerscope.plots import curve_over_depth


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by name."""
    caption = (
        f"Mean over {result.attrs['passages']} passages, bootstrap band. "
        "A straight line: the same growth in every layer."
    )
    return {
        "How long is the state at each depth?": curve_over_depth(
            as_curve(result, "log_norm"), caption=caption
        )
    }
