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


def prediction_p(
    value: Float[Array, "*cell"], values: Float[Array, "one *cell"]
) -> Float[np.ndarray, "*cell"]:
    """Two-sided p that a value is one more of the same kind: t = (value − mean) / (SD √(1 + 1 / k)), k − 1 freedom.

    Args:
        value: what is asked about, any number of cells.
        values: k of the kind for each cell, NaNs left out.

    Returns:
        In [0, 1]; NaN where the value or fewer than FEWEST of the kind are known. Below .05 exactly where the value
        lies outside `prediction_interval`. Of a kind that does not vary: 1 for its own value, else 0.

    Source: Hahn & Meeker 1991, "Statistical Intervals".
    """
    from scipy.special import stdtr

    one, found = to_float64(value), to_float64(values)
    known = np.isfinite(found)
    k = known.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(known, found, 0).sum(axis=0) / k
        spread = np.sqrt((np.where(known, found - mean, 0) ** 2).sum(axis=0) / (k - 1))
        t = np.abs(one - mean) / (spread * np.sqrt(1 + 1 / k))
    p = np.where(one == mean, 1.0, 2 * stdtr(np.maximum(k - 1, 1), -t))
    return np.asarray(np.where(np.isfinite(one) & (k >= FEWEST), p, np.nan))
