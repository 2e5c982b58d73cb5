"""Does a rate over layers rise or fall, and is there structure that no straight line explains?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Float, Int

from layerscope.maths.arrays import divide
from layerscope.maths.correlation import mean_ranks, rank_correlation


@dataclass(frozen=True)
class Trend:
    """A straight line through rates, and what is left of them.

    Attributes:
        slope: change of the rate from the first layer to the last.
        low, high: its interval.
        p: two-sided, of no slope.
        structure: summed squares of what the line leaves, in units of its chance variance.
        freedom: degrees of freedom of that; 1 on average for each if a line is all there is.
        structure_p: of as much being left by chance.
    """

    slope: float
    low: float
    high: float
    p: float
    structure: float
    freedom: int
    structure_p: float


def rate_error(hits: Int[np.ndarray, "*cell"], n: Int[np.ndarray, "*cell"]) -> Float[np.ndarray, "*cell"]:
    """Standard error of a rate: √(p (1 − p) / n) at p = (hits + 2) / (n + 4), so that none is zero.

    Source: Agresti & Coull 1998.
    """
    share = (np.asarray(hits) + 2) / (np.asarray(n) + 4)
    return divide(np.sqrt(share * (1 - share)), np.sqrt(np.asarray(n, dtype=np.float64)))


def rate_trend(hits: Int[np.ndarray, "layer"], n: Int[np.ndarray, "layer"], *, level: float = 0.95) -> Trend:
    """Weighted straight line through rates over layers, and a χ² test of what it leaves.

    Each layer counts by its binomial variance at the overall rate. Units (directions) are taken as
    independent; where they hang together, both p are too small.

    Args:
        hits: how many units of each layer count.
        n: how many there are; layers without any are left out.
        level: of the slope's interval.

    Returns:
        NaN throughout with fewer than four layers, or where no unit or every unit counts.

    Source: Cochran 1954, "Some methods for strengthening the common χ² tests": trend and departure from it.
    """
    from scipy.special import chdtrc, ndtr, ndtri

    hits, n = np.asarray(hits, dtype=np.float64), np.asarray(n, dtype=np.float64)
    places = np.linspace(0, 1, len(n))
    there = n > 0
    overall = hits[there].sum() / max(1.0, n[there].sum())
    nan = math.nan
    if there.sum() < 4 or not 0 < overall < 1:
        return Trend(nan, nan, nan, nan, nan, 0, nan)
    rates, weights = hits[there] / n[there], n[there] / (overall * (1 - overall))
    x = places[there] - (weights * places[there]).sum() / weights.sum()
    precision = (weights * x**2).sum()
    slope = (weights * x * rates).sum() / precision
    left = rates - (weights * rates).sum() / weights.sum() - slope * x
    structure, freedom = float((weights * left**2).sum()), int(there.sum()) - 2
    error, z = precision**-0.5, abs(slope) * precision**0.5
    reach = float(ndtri((1 + level) / 2)) * error
    return Trend(
        slope=float(slope),
        low=float(slope - reach),
        high=float(slope + reach),
        p=float(2 * ndtr(-z)),
        structure=structure,
        freedom=freedom,
        structure_p=float(chdtrc(freedom, structure)),
    )


def rate_difference_p(hits: int, n: int, other_hits: int, other_n: int) -> float:
    """Two-sided p of two rates being one, by the pooled normal approximation; NaN without units.

    Source: definition (two-proportion z test).
    """
    from scipy.special import ndtr

    if not n or not other_n:
        return math.nan
    pooled = (hits + other_hits) / (n + other_n)
    variance = pooled * (1 - pooled) * (1 / n + 1 / other_n)
    if variance <= 0:
        return 1.0
    return float(2 * ndtr(-abs(hits / n - other_hits / other_n) / math.sqrt(variance)))


def rate_difference_interval(
    hits: int, n: int, other_hits: int, other_n: int, *, level: float = 0.95
) -> tuple[float, float]:
    """Ends of the interval of a difference of two rates, the first less the second; NaN without units.

    It holds every difference that the score test does not reject at 1 − level. At a difference of 0 that test is
    `rate_difference_p`: the interval leaves 0 out exactly where that p is below 1 − level.

    Source: Mee 1984, "Confidence bounds for the difference between two probabilities"; the rates under a given
    difference by the closed form of Miettinen & Nurminen 1985.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    if not n or not other_n:
        return math.nan, math.nan
    seen, most = hits / n - other_hits / other_n, float(ndtri((1 + level) / 2))

    def too_far(difference: float) -> float:
        error = _score_error(hits, n, other_hits, other_n, difference)
        if error <= 0:
            return -most if difference == seen else math.inf
        return abs(seen - difference) / error - most

    low = -1.0 if too_far(-1.0) <= 0 else brentq(too_far, -1.0, seen)
    high = 1.0 if too_far(1.0) <= 0 else brentq(too_far, seen, 1.0)
    return float(low), float(high)


def _score_error(hits: int, n: int, other_hits: int, other_n: int, difference: float) -> float:
    """Standard error of a difference of rates where that difference is the true one."""
    # The largest likelihood under the difference: a cubic in the second rate with one root between 0 and 1.
    total = n + other_n
    cubic = [
        total,
        (n + 2 * other_n) * difference - total - hits - other_hits,
        (other_n * difference - total - 2 * other_hits) * difference + hits + other_hits,
        other_hits * difference * (1 - difference),
    ]
    a = (cubic[1] / (3 * total)) ** 3 - cubic[1] * cubic[2] / (6 * total**2) + cubic[3] / (2 * total)
    b = math.copysign(math.sqrt(max(0.0, (cubic[1] / (3 * total)) ** 2 - cubic[2] / (3 * total))), a)
    angle = 0.0 if b == 0 else (math.pi + math.acos(min(1.0, max(-1.0, a / b**3)))) / 3
    second = min(1.0, max(0.0, 2 * b * math.cos(angle) - cubic[1] / (3 * total)))
    first = min(1.0, max(0.0, second + difference))
    return math.sqrt(first * (1 - first) / n + second * (1 - second) / other_n)


def goes_with(
    a: Float[np.ndarray, "layer"],
    b: Float[np.ndarray, "layer"],
    *,
    block: int,
    seed: int,
    resamples: int = 1999,
) -> tuple[float, float]:
    """Spearman's rank correlation of two series over layers, and p where neighbours are alike.

    Both change slowly over depth, so that layers are not independent: whole stretches of `block` layers
    of one series are put in other orders. All orders are taken where they are few.

    Args:
        a, b: NaN where a layer has no value.
        block: layers of one stretch.
        seed: of the orders.
        resamples: how many orders are drawn, where there are more.

    Returns:
        Correlation and two-sided p; NaN where fewer than three stretches or a constant series is left.

    Source: Künsch 1989, "The jackknife and the bootstrap for general stationary observations", for blocks.
    """
    there = np.isfinite(a) & np.isfinite(b)
    a, b = np.asarray(a)[there], np.asarray(b)[there]
    if not len(a) or not np.ptp(a) or not np.ptp(b):
        return math.nan, math.nan
    first, second = (mean_ranks(one) for one in (a, b))
    stretches = [second[start : start + block] for start in range(0, len(b), block)]
    if len(stretches) < 3:
        return math.nan, math.nan
    exact = math.factorial(len(stretches)) <= resamples
    rng = np.random.default_rng(seed)
    places = range(len(stretches))
    orders = permutations(places) if exact else (rng.permutation(len(stretches)) for _ in range(resamples))
    shuffled = np.array([np.concatenate([stretches[i] for i in order]) for order in orders])
    centred = first - first.mean()
    found, others = centred @ second, shuffled @ centred
    as_far = int((abs(others) >= abs(found) * (1 - 1e-12)).sum())
    p = as_far / len(shuffled) if exact else (as_far + 1) / (resamples + 1)
    return rank_correlation(a, b), float(p)
