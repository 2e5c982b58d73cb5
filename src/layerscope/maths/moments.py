"""Mean and standard deviation of numbers that are never in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float

from layerscope.maths.arrays import Array, to_float64


@dataclass(frozen=True)
class Moments:
    """Count, mean and summed squared deviations of a set of numbers; the default is the empty set.

    Attributes:
        count: how many numbers.
        mean: their mean; 0 for the empty set.
        squares: the sum of (x − mean)², ≥ 0.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0


def moments_of(values: Float[Array, "*shape"]) -> Moments:
    """The moments of all entries of an array together, in float64.

    Squared deviations are taken from the mean: E[x²] − E[x]² would lose every digit where the mean
    is large beside the spread. A NaN among the values makes mean and squares NaN.

    Source: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", two-pass form.
    """
    entries = to_float64(values)
    if not entries.size:
        return Moments()
    mean = float(entries.mean())
    return Moments(count=entries.size, mean=mean, squares=float(((entries - mean) ** 2).sum()))


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of two sets of numbers put together.

    With δ = mean_b − mean_a and n = n_a + n_b: mean_a + δ n_b / n, and S_a + S_b + δ² n_a n_b / n.
    Any grouping of the parts gives the same moments up to rounding, and the same grouping the same
    bits.

    Source: Chan, Golub & LeVeque 1983.
    """
    count = a.count + b.count
    if not count:
        return Moments()
    apart = b.mean - a.mean
    return Moments(
        count=count,
        mean=a.mean + apart * b.count / count,
        squares=a.squares + b.squares + apart**2 * a.count * b.count / count,
    )


def standard_deviation(moments: Moments, *, unbiased: bool = True) -> float:
    """Spread of the numbers: √(S / (n − 1)), or √(S / n) with `unbiased=False`.

    The default is torch's own `.std()`, which ROME's code uses for the size of its noise; numpy's
    default is the other one.

    Returns:
        A spread ≥ 0 in the units of the numbers; NaN for fewer than two numbers (one, if not unbiased).

    Source: Meng et al. 2022, ROME, code of causal tracing.
    """
    freedom = moments.count - (1 if unbiased else 0)
    return math.sqrt(moments.squares / freedom) if freedom > 0 else math.nan
