"""What the first tokens tell, where heads' mean patterns over texts are known: content or position?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.quantities import interval_variables
from layerscope.experiments._attention_measuring import BIN_SUMS, CORNERS
from layerscope.experiments._attention_ratios import (
    STATISTICS,
    Statistic,
    by_layer_and_head,
    sum_of,
    zero_where_absent,
)
from layerscope.experiments._attention_settings import Settings
from layerscope.maths.attention import variability
from layerscope.maths.ratios import bootstrap_ratio, known_mean, ratio
from layerscope.results.schema import quantity

EARLY = tuple(name for name in STATISTICS if name != "fixed_distance")
"""Statistics that the first tokens have too, where heads' mean patterns are known."""

NULLS = {"own_mean": "head's mean pattern", "uniform": "uniform attention"}


def content(passages: xr.Dataset, settings: Settings) -> dict[str, Any]:
    """Variability at the first tokens, and there every statistic beside its nulls."""
    corner = passages.corner_sums
    deviation, kept = (
        zero_where_absent(sum_of(corner, "deviation")),
        zero_where_absent(sum_of(corner, "every")),
    )
    long_name = f"deviation from the head's mean pattern, first {settings.mean_positions} tokens"
    variables = by_layer_and_head(
        "variability",
        variability(deviation, np.ones_like(kept)),
        kept,
        Statistic("", "", long_name),
        settings,
    )
    for name in ("variability", "head_variability"):
        # Resamples of texts that keep next to nothing pass 1, which the deviation itself cannot.
        high = variables[f"{name}_high"]
        variables[f"{name}_high"] = high.copy(data=np.minimum(high.values, 1.0))
    return variables | _early(passages, settings)


def _early(passages: xr.Dataset, settings: Settings) -> dict[str, Any]:
    """Every statistic among the first tokens, beside what its nulls give there."""
    sums = {name: passages[f"{name}_sums"] for name in CORNERS}
    variables: dict[str, Any] = {}
    for name in EARLY:
        statistic = STATISTICS[name]
        parts = {
            source: [zero_where_absent(sum_of(own, part)) for part in (statistic.above, statistic.below)]
            for source, own in sums.items()
        }
        variables |= beside_nulls(name, parts, statistic, "definition layer", settings)
    bins = {source: _early_bins(own) for source, own in sums.items()}
    share = Statistic("", "", "share of attention by distance")
    return variables | beside_nulls("bin_share", bins, share, "distance_bin definition layer", settings)


def beside_nulls(
    name: str, parts: Mapping[str, Sequence[np.ndarray]], statistic: Statistic, dims: str, settings: Settings
) -> dict[str, Any]:
    """A statistic among the first tokens with its interval, and each null's, all means over heads.

    Args:
        name: of the statistic; variables are called after it.
        parts: what stands above and below, of the model and of each null.
        statistic: what it is called.
        dims: of the result.
        settings: of the run.
    """
    long_name = f"{statistic.long_name}, first {settings.mean_positions} tokens"
    found = bootstrap_ratio(
        *parts["corner"],
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
        mean_of_last=True,
    )
    early = interval_variables(f"early_{name}", found, dims, long_name, statistic.units)
    del early[f"early_{name}_n"]  # as many as there are passages
    for source, whose in NULLS.items():
        null = known_mean(ratio(*parts["uniform_corner" if source == "uniform" else source]))
        early[f"{source}_early_{name}"] = quantity(null, dims, f"{long_name}, {whose}", statistic.units)
    return early


def _early_bins(sums: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    above = zero_where_absent(np.stack([sum_of(sums, name) for name in BIN_SUMS], axis=1))
    return above, np.broadcast_to(zero_where_absent(sum_of(sums, "every"))[:, None], above.shape)
