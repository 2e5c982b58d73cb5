"""Could so many hits come by chance, where each trial has a chance of its own?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, to_float64


def p_of_hits(hits: Float[Array, "trial"], chances: Float[Array, "trial"]) -> float:
    """Two-sided exact p of a number of hits among independent trials, each with its own chance.

    An interval over groups of trials has no width where hits are rare and there are none: this says whether none
    is any different from what was to be expected.

    Args:
        hits: 1 for a hit, 0 for none; NaN where it is unknown.
        chances: of a hit in each trial, in [0, 1]; NaN where unknown.

    Returns:
        Twice the smaller tail of the Poisson binomial distribution, at most 1; NaN where no trial is known.

    Source: Hong 2013, "On computing the distribution function for the Poisson binomial distribution", Computational
    Statistics & Data Analysis 59.
    """
    from scipy.stats import poisson_binom

    found, by_chance = to_float64(hits), to_float64(chances)
    known = np.isfinite(found) & np.isfinite(by_chance)
    if not known.any():
        return float("nan")
    count = int(found[known].sum())
    # A tail of such a sum carries rounding of 1e-16, also below 0.
    expected = np.clip(by_chance[known], 0, 1)
    tails = poisson_binom.cdf(count, expected), poisson_binom.sf(count - 1, expected)
    return float(np.clip(2 * min(tails), 0, 1))
