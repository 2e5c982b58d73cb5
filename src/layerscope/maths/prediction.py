"""Where would one more of a few values lie? What a model is held against beside its untrained twins."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, to_float64

FEWEST = 5
"""Values from which a prediction is made; fewer are shown and decide nothing."""


def prediction_interval(values: Float[Array, "one"], *, level: float = 0.95) -> tuple[float, float]:
    """Ends between which the next value of the same kind falls: mean ± t SD √(1 + 1 / k).

    Args:
        values: k of them, NaNs left out.
        level: of the interval, in (0, 1).

    Returns:
        Low and high; NaN where fewer than FEWEST are known.

    Source: Hahn & Meeker 1991, "Statistical Intervals", for normal values.
    """
    from scipy.special import stdtrit

    found = to_float64(values)
    known = found[np.isfinite(found)]
    k = len(known)
    if k < FEWEST:
        return float("nan"), float("nan")
    half = stdtrit(k - 1, (1 + level) / 2) * known.std(ddof=1) * np.sqrt(1 + 1 / k)
    return float(known.mean() - half), float(known.mean() + half)
