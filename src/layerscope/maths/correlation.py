"""Do two measures order things alike?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

from layerscope.maths.arrays import Array, to_float64


def rank_correlation(a: Num[Array, "unit"], b: Num[Array, "unit"]) -> float:
    """Spearman's rank correlation, in [-1, 1]; ties share their mean rank.

    Args:
        a, b: paired values.

    Returns:
        NaN where either does not vary or holds a NaN.

    Source: Spearman 1904, as in scipy.
    """
    values = to_float64(a), to_float64(b)
    if any(np.isnan(one).any() for one in values):
        return float("nan")
    first, second = (mean_ranks(one) for one in values)
    if not first.size or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def mean_ranks(values: Num[np.ndarray, "unit"]) -> Float[np.ndarray, "unit"]:
    """Rank of each value, 1 for the smallest; equal values share the mean of their ranks.

    scipy.stats.rankdata has the same, and takes most of a second to import.
    """
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place])
