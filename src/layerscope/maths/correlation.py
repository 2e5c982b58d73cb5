"""Do two measures order things alike?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, to_float64


def rank_correlation(a: Float[Array, "unit"], b: Float[Array, "unit"]) -> float:
    """Spearman's rank correlation, in [-1, 1]; ties share their mean rank.

    Args:
        a, b: paired values without NaN.

    Returns:
        NaN where either does not vary.

    Source: Spearman 1904, as in scipy.
    """
    from scipy.stats import rankdata

    first, second = rankdata(to_float64(a)), rankdata(to_float64(b))
    if not first.size or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
