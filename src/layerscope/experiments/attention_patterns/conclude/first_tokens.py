"""What the first tokens tell, where heads' mean patterns over texts are known: content or position?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence import Over, cell_by_cell
from layerscope.experiments.attention_patterns.conclude.ratios import (
    STATISTICS,
    Statistic,
    beside_nulls,
    by_layer_and_head,
    sum_of,
)
from layerscope.experiments.attention_patterns.measure.tables import BIN_SUMS, CORNERS
from layerscope.maths.attention import variability

_EARLY = tuple(name for name in STATISTICS if name != "fixed_distance")
"""Statistics that the first tokens have too."""


def content(passages: xr.Dataset, over: Over, positions: int) -> list[xr.Dataset]:
    """Variability at the first tokens, and there every statistic beside its nulls."""
    deviation, kept = (sum_of(passages.corner_sums, name) for name in ("deviation", "every"))
    half = cell_by_cell(variability, deviation, xr.ones_like(kept))
    long_name = f"deviation from the head's mean pattern, first {positions} tokens"
    differ = by_layer_and_head(over, "variability", half, kept, Statistic("", "", long_name))
    return [*map(_at_most_one, differ), *_early(passages, over)]


def _at_most_one(found: xr.Dataset) -> xr.Dataset:
    """Resamples of texts that keep next to nothing pass 1, which the deviation itself cannot."""
    high = {name: values for name, values in found.items() if str(name).endswith("_high")}
    return found.assign({name: values.copy(data=np.minimum(values, 1.0)) for name, values in high.items()})


def _early(passages: xr.Dataset, over: Over) -> list[xr.Dataset]:
    """Every statistic among the first tokens, beside what its nulls give there."""
    sums, found = {name: passages[f"{name}_sums"] for name in CORNERS}, []
    for name in _EARLY:
        parts = {source: STATISTICS[name].parts(own) for source, own in sums.items()}
        found += beside_nulls(over, name, parts, STATISTICS[name])
    bins = {source: (_bins(own), sum_of(own, "every")) for source, own in sums.items()}
    return found + beside_nulls(over, "bin_share", bins, Statistic("", "", "share of attention by distance"))


def _bins(sums: xr.DataArray) -> xr.DataArray:
    return xr.concat([sum_of(sums, name) for name in BIN_SUMS], dim="distance_bin")
