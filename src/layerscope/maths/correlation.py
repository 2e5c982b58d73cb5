"""Do two measures order things alike?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Num

from layerscope.maths.arrays import Array, to_float64


def rank_correlation(a: Num[Array, "unit"], b: Num[Array, "unit"]) -> float:
    """Spearman's rank correlation, in [-1, 1]; ties share their mean rank.

    Args:
        a, b: paired values.

    Returns:
        NaN where either does not vary or holds a NaN.

    Source: Spearman 1904, as in scipy.
    """
    from scipy.stats import rankdata

    values = to_float64(a), to_float64(b)
    if any(np.isnan(one).any() for one in values):
        return float("nan")
    first, second = (rankdata(one) for one in values)
    if not first.size or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
