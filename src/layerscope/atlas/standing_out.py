"""Which layers stand out in which measures: from the other layers, from the null and from untrained twins."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence.wording import ALPHA
from layerscope.maths.permutation import holm
from layerscope.maths.prediction import prediction_p
from layerscope.maths.standing_out import from_the_others, p_by_resamples, sds_from_the_others
from layerscope.results.schema import quantity

FARTHEST_OF_MOST = 2.0
"""SDs of the other layers from their mean from which a layer stands out: with texts enough, every layer differs."""


def standing_out(data: xr.Dataset) -> xr.Dataset:
    """Adds to the atlas of one model which of its cells stand out.

    A cell stands out where its layer's value lies two SDs of the other layers from their mean or farther; differs from
    that mean by more than texts vary; differs from the measure's null, where it has one; and, where five or more
    untrained twins were run, lies farther from the other layers than the same layer of another twin would. Its p is
    the largest of these, corrected by Holm's method over all layers of all measures: 200 replicates give no largest
    statistic that could still be corrected for thirty measures, and this bound of it needs none. Without a null and
    without twins nothing stands out: what an untrained model would show is unknown.

    Returns:
        The same with `apart` (value less the mean of the other layers), `sds` (that in SDs of the other layers), `rank`
        (1 is the largest), `p_adjusted`, `stands_out` (1 or 0) and `untrained_mean` [measure layer].
    """
    value, draws = data["value"].values, data["draws"].values.swapaxes(0, 1)  # [draw measure layer]
    apart = from_the_others(value)
    by_texts = p_by_resamples(apart, from_the_others(draws), units=data["n"].values)
    by_null = p_by_resamples(value, draws, units=data["n"].values, nothing=data["null"].values)
    by_twins = _by_twins(data, apart)
    has_null, has_twins = np.isfinite(data["null"].values), np.isfinite(by_twins)
    judged = np.fmax(np.where(has_null, by_null, np.nan), by_twins)
    p = np.where(has_null | has_twins, np.maximum(by_texts, judged), np.nan)
    adjusted, sds = holm(p.ravel()).reshape(p.shape), sds_from_the_others(value)
    clear = (adjusted < ALPHA) & (np.abs(sds) >= FARTHEST_OF_MOST)
    found = {
        "apart": quantity(apart, _OVER, "value less the mean of the other layers"),
        "rank": quantity(_ranks(value), _OVER, "rank among layers, 1 is the largest"),
        "sds": quantity(sds, _OVER, "distance from the mean of the other layers", "SD"),
        "p_adjusted": quantity(
            adjusted, _OVER, "p of standing out, by Holm's method over all layers and measures"
        ),
        "stands_out": quantity(clear.astype(int), _OVER, "whether the layer stands out"),
    }
    if "untrained" in data:
        found["untrained_mean"] = quantity(
            data["untrained"].mean("twin").values, _OVER, "mean of untrained twins"
        )
    return data.assign(found)


_OVER = "measure layer"


def _by_twins(data: xr.Dataset, apart: np.ndarray) -> np.ndarray:
    """p that a layer's distance from the other layers is one more untrained twin's; NaN with too few twins."""
    if "untrained" not in data:
        return np.full(apart.shape, np.nan)
    return prediction_p(apart, from_the_others(data["untrained"].values.swapaxes(0, 1)))


def _ranks(value: np.ndarray) -> np.ndarray:
    above = (value[:, None, :] > value[:, :, None]).sum(axis=-1)
    return np.where(np.isfinite(value), 1.0 + above, np.nan)
