"""How many draws does a mean need, and how far does it stand from the mean of all draws that could be made?

Draws that depend on one another (mirrored pairs, blocks of Sobol's points) are one unit: their mean is one number,
and only the spread between units says how far the mean of all would move with other draws.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, to_float64

FEWEST_UNITS = 2


def mean_half_width(
    values: Float[Array, "draw *rest"], *, together: int = 1, level: float = 0.95
) -> Float[np.ndarray, "*rest"]:
    """Half the width of the interval of a mean over draws, by Student's t over units.

    Args:
        values: one row for each draw, units one after another.
        together: draws of a unit.
        level: of the interval, in (0, 1).

    Returns:
        In the units of the values; NaN where there are fewer than two whole units.

    Raises:
        ValueError: a unit that is not whole.
    """
    units = unit_means(values, together)
    if len(units) < FEWEST_UNITS:
        return np.full(units.shape[1:], np.nan)
    return np.asarray(_reach(len(units) - 1, level) * units.std(axis=0, ddof=1) / np.sqrt(len(units)))


def unit_means(values: Float[Array, "draw *rest"], together: int) -> Float[np.ndarray, "unit *rest"]:
    """Means of the draws that depend on one another.

    Raises:
        ValueError: a unit that is not whole.
    """
    draws = to_float64(values)
    if len(draws) % together:
        raise ValueError(f"expected whole units of {together} draws, found {len(draws)} draws")
    return np.asarray(draws.reshape(-1, together, *draws.shape[1:]).mean(axis=1))


def units_needed(spread: float, *, pilots: int, half_width: float, level: float = 0.95, most: int) -> int:
    """How many new units make a mean as sure as this, judged by the spread of some units that are then not used.

    The smallest n with t √(spread² / n) at most the half-width, where t is Student's quantile on
    min(pilots, n) − 1 degrees of freedom. With the pilots' degrees of freedom, mean ± half-width holds the truth in
    at least `level` of all repetitions, whatever the spread really is (Stein, for normal units); with n's own, an
    interval that is read from the new units alone is expected to be as short.

    Args:
        spread: standard deviation between the pilot units; where it is not known (NaN), the fewest are taken.
        pilots: how many of them there were, at least 2.
        half_width: that is wanted, in the units of the spread, above 0.
        level: of the interval, in (0, 1).
        most: where to stop.

    Source: Stein 1945, "A two-sample test for a linear hypothesis whose power is independent of the variance".
    """
    if pilots < FEWEST_UNITS or not half_width > 0:
        raise ValueError(f"expected two pilots or more and a width above 0, found {pilots} and {half_width}")
    if np.isnan(spread):
        return FEWEST_UNITS
    n = np.arange(FEWEST_UNITS, max(most, FEWEST_UNITS) + 1)
    enough = _reach(np.minimum(pilots, n) - 1, level) * spread / np.sqrt(n) <= half_width
    return int(n[enough.argmax()] if enough.any() else n[-1])


def _reach(freedom: Array, level: float) -> Array:
    from scipy.special import stdtrit

    return stdtrit(freedom, (1 + level) / 2)
