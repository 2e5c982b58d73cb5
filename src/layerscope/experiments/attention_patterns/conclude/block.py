"""The block of distributed attention: where layers begin to rest on the first token, and where they stop."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from layerscope.evidence import Over, Resampled, named
from layerscope.experiments.attention_patterns.conclude.ratios import ratio_of, sum_of
from layerscope.maths.arrays import divide
from layerscope.maths.attention import crossings
from layerscope.maths.bootstrap import resampled_counts
from layerscope.maths.ratios import known_mean, ratio_draws

MAIN_THRESHOLD = 0.3
THRESHOLDS = (0.1, 0.2, MAIN_THRESHOLD, 0.5)
FIRST_TOKEN = "first token"
SINK_MEASURES = (FIRST_TOKEN, "sink tokens", "first token by value norm")
_ENDS = {
    "block_end": "layer at which attention comes to rest",
    "block_return": "layer at which it leaves again",
}


def block(passages: xr.Dataset, over: Over, sink_share: float) -> list[xr.Dataset]:
    """Where layers begin to rest on the first token, and where they leave it again at the end."""
    share = _resting(passages, over).named("resting_share", "share of attention at rest, mean over heads")
    found = [over.quantity(share, together="layer")]
    for place, (name, what) in enumerate(_ENDS.items()):
        ends = share.map(partial(_ends, place=place))
        found.append(over.quantity(ends.named(name, what, "layer")))
    first, queries = (
        sum_of(passages.model_sums, name).isel(definition=0, drop=True) for name in ("first token", "queries")
    )
    there = ratio_of(first, queries, over.unit)
    resting = (there > sink_share).sum("head").astype(np.int64)
    return [
        *found,
        named(resting, "sink_heads", f"heads with over {sink_share:g} on the first token").to_dataset(),
    ]


def _resting(passages: xr.Dataset, over: Over) -> Resampled:
    """Share of attention at rest [sink_measure layer], mean over heads, and the same of resampled passages."""
    first, every, queries = (
        sum_of(passages.model_sums, name).transpose(over.unit, "definition", ...).values
        for name in ("first token", "every", "queries")
    )
    above = np.stack([first[:, 0], queries[:, 0] - every[:, 2], first[:, 3]], axis=1)
    below = np.stack([queries[:, 0], queries[:, 0], every[:, 3]], axis=1)
    # What a learned sink takes is nobody's attention, and no sink token's either.
    above[:, 1] = np.maximum(above[:, 1] - (queries[:, 0] - every[:, 0]), 0)
    # One text has no interval, and needs no resamples for one.
    resamples = over.settings.resamples if over.n > 1 else 1
    counts = resampled_counts(over.n, seed=over.settings.seed, resamples=resamples)
    dims = ("sink_measure", "layer")
    coords = {"sink_measure": list(SINK_MEASURES), "layer": passages.layer.variable}
    whole = known_mean(divide(above.sum(axis=0), below.sum(axis=0)))
    value = xr.DataArray(whole, dims=dims, coords=coords)
    draws = xr.DataArray(known_mean(ratio_draws(above, below, counts)), dims=("draw", *dims), coords=coords)
    return Resampled(value, draws, xr.full_like(value, over.n, dtype=np.int64))


def _ends(shares: xr.DataArray, place: int) -> xr.DataArray:
    """Where layers cross each threshold, upwards (0) or downwards for good (1); layers without attention left out."""

    def of_rows(rows: np.ndarray) -> np.ndarray:
        flat = rows.reshape(-1, rows.shape[-1])
        found = [[crossings(row[~np.isnan(row)], t)[place] for t in THRESHOLDS] for row in flat]
        return np.array(found).reshape(*rows.shape[:-1], len(THRESHOLDS))

    found: xr.DataArray = xr.apply_ufunc(
        of_rows, shares, input_core_dims=[["layer"]], output_core_dims=[["threshold"]]
    )
    return found
