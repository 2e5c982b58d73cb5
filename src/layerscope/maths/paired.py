"""Two numbers for each unit: does one lie above the other, and do they rise together?"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Num

from layerscope.maths.arrays import Array, to_float64


def sign_flip_p(differences: Float[Array, "unit"], *, seed: int, resamples: int = 9999) -> float:
    """Two-sided p of a mean of paired differences, their signs being dealt anew.

    Where nothing tells the two numbers of a unit apart, each sign is as likely as the other. p = (1 + deals
    as large) / (1 + deals), which is never zero.

    Args:
        differences: one for each unit; NaNs are left out.
        seed: the same seed gives the same p.
        resamples: deals of signs.

    Returns:
        In (0, 1]; NaN for fewer than two differences.

    Source: Phipson & Smyth 2010 for the count; Fisher 1935, "The design of experiments", for the test.
    """
    values = to_float64(differences)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return math.nan
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(resamples, len(values)))
    # Equal sums count as equal, however their rounding fell out.
    as_large = np.abs(signs @ values) >= abs(values.sum()) * (1 - 1e-9)
    return float((1 + as_large.sum()) / (1 + resamples))


def rank_correlation(a: Num[Array, "unit"], b: Num[Array, "unit"]) -> float:
    """Spearman's: the correlation of ranks, equal values sharing their mean rank.

    Returns:
        In [-1, 1]; NaN where either holds a NaN or does not vary.

    Source: Spearman 1904.
    """
    from scipy.stats import rankdata

    first, second = to_float64(a), to_float64(b)
    if np.isnan(first).any() or np.isnan(second).any():
        return math.nan
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (first, second))
    length = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / length if length else math.nan
