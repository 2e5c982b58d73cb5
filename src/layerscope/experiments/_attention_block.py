"""The block of distributed attention: where layers begin to rest on the first token, and where they stop."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.quantities import interval_variables
from layerscope.experiments._attention_ratios import sum_of, zero_where_absent
from layerscope.experiments._attention_settings import Settings
from layerscope.maths.arrays import divide
from layerscope.maths.attention import crossings
from layerscope.maths.bootstrap import interval_of_draws, resampled_counts
from layerscope.maths.ratios import known_mean, ratio
from layerscope.results.schema import quantity

THRESHOLDS = (0.1, 0.2, 0.3, 0.5)
SINK_MEASURES = ("first token", "sink tokens", "first token by value norm")


def block(passages: xr.Dataset, settings: Settings) -> dict[str, Any]:
    """Where layers begin to rest on the first token, and where they leave it again at the end."""
    sums = passages.model_sums
    first, every, queries = (
        zero_where_absent(sum_of(sums, name)) for name in ("first token", "every", "queries")
    )
    above = np.stack([first[:, 0], queries[:, 0] - every[:, 2], first[:, 3]], axis=1)
    below = np.stack([queries[:, 0], queries[:, 0], every[:, 3]], axis=1)
    # What a learned sink takes is nobody's attention, and no sink token's either.
    above[:, 1] = np.maximum(above[:, 1] - (queries[:, 0] - every[:, 0]), 0)
    # One text has no interval, and needs no resamples for one.
    resamples = settings.resamples if len(above) > 1 else 1
    counts = resampled_counts(len(above), seed=settings.seed, resamples=resamples)
    draws = known_mean(divide(np.tensordot(counts, above, axes=1), np.tensordot(counts, below, axes=1)))
    value = known_mean(ratio(above, below))
    shares = interval_of_draws(value, draws, units=len(above), level=settings.level)
    variables = interval_variables(
        "resting_share", shares, "sink_measure layer", "share of attention at rest, mean over heads"
    )
    ends = np.array([[crossings(row[~np.isnan(row)], t) for t in THRESHOLDS] for row in value])
    moved = np.array(
        [[[crossings(row[~np.isnan(row)], t) for t in THRESHOLDS] for row in draw] for draw in draws]
    )
    for place, (name, what) in enumerate(
        (
            ("block_end", "layer at which attention comes to rest"),
            ("block_return", "layer at which it leaves again"),
        )
    ):
        interval = interval_of_draws(
            ends[..., place], moved[..., place], units=len(above), level=settings.level
        )
        variables |= interval_variables(name, interval, "sink_measure threshold", what, "block")
    there = ratio(first[:, 0], queries[:, 0])
    resting = np.where(np.isnan(there), np.nan, there > settings.sink_share)
    variables["sink_heads"] = quantity(
        np.nansum(resting, axis=-1).astype(np.int64),
        "layer",
        f"heads with over {settings.sink_share:g} on the first token",
    )
    return variables
