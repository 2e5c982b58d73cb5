"""Two groups of prompts compared at every layer at once: which layers tell them apart?

The layers of one model are anything but independent, so correcting each for all of them as if they were
wastes much. Here labels are dealt anew for whole prompts, and a layer counts only if its difference
exceeds the largest that any layer shows under chance: the chance of a single false layer stays below the
level, whatever the correlation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, divide, to_float64

_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Curves:
    """Two groups compared in every cell.

    Attributes:
        difference: mean(a) − mean(b) per cell; NaN where a cell is not known for all units.
        p: share of the deals whose largest statistic over all cells reaches this cell's: two-sided,
            adjusted for the number of cells, in (0, 1]; NaN likewise.
    """

    difference: Float[np.ndarray, "*cell"]
    p: Float[np.ndarray, "*cell"]


def compare_curves(
    a: Float[Array, "n *cell"], b: Float[Array, "m *cell"], *, seed: int, permutations: int = 1999
) -> Curves:
    """Two-sided permutation test of the difference of two groups, for all cells together.

    The statistic of a cell is the difference of means over its standard error (Welch's), so that cells
    of any scale count alike. p = (1 + deals as large) / (1 + deals).

    Args:
        a: one row per unit of the first group.
        b: likewise of the second. A cell with a NaN in either is left out.
        seed: the same seed gives the same p.
        permutations: deals of the units into groups of these sizes.

    Returns:
        `Curves`, all NaN where a group has fewer than two units.

    Source: Westfall & Young 1993, single-step maxT; Nichols & Holmes 2002, for curves and images.
    """
    first, second = to_float64(a), to_float64(b)
    shape = first.shape[1:]
    pooled = np.concatenate([first, second]).reshape(len(first) + len(second), math.prod(shape))
    known = ~np.isnan(pooled).any(axis=0)
    difference, p = np.full(pooled.shape[1], np.nan), np.full(pooled.shape[1], np.nan)
    if min(len(first), len(second)) > 1 and known.any():
        rows = pooled[:, known] - pooled[:, known].mean(axis=0)
        chosen = np.zeros((1, len(pooled)))
        chosen[0, : len(first)] = 1
        difference[known] = rows[: len(first)].mean(axis=0) - rows[len(first) :].mean(axis=0)
        p[known] = _adjusted(rows, chosen, seed, permutations)
    return Curves(difference.reshape(shape), p.reshape(shape))


def _adjusted(
    rows: Float[np.ndarray, "unit cell"], chosen: Float[np.ndarray, "one unit"], seed: int, permutations: int
) -> Float[np.ndarray, "cell"]:
    seen = _welch(rows, chosen)[0]
    rng, larger = np.random.default_rng(seed), np.zeros(rows.shape[1])
    size = max(1, _AT_ONCE // rows.size)
    for start in range(0, permutations, size):
        deals = rng.permuted(np.repeat(chosen, min(size, permutations - start), axis=0), axis=1)
        largest = _welch(rows, deals).max(axis=1)
        larger += (largest[:, None] >= seen * (1 - 1e-9)).sum(axis=0)
    return np.asarray((1 + larger) / (1 + permutations))


def _welch(
    rows: Float[np.ndarray, "unit cell"], chosen: Float[np.ndarray, "deal unit"]
) -> Float[np.ndarray, "deal cell"]:
    """|difference of means| over its standard error; 0 where neither group varies and means agree."""
    parts = []
    for members in (chosen, 1 - chosen):
        n = members.sum(axis=1, keepdims=True)
        mean = members @ rows / n
        parts.append((mean, np.maximum(members @ rows**2 / n - mean**2, 0) / (n - 1)))
    (mean_a, error_a), (mean_b, error_b) = parts
    apart = np.abs(mean_a - mean_b)
    # A spread below rounding is none: a cell in which every unit is alike tells nothing apart.
    error = np.sqrt(error_a + error_b + 1e-24 * (rows**2).mean(axis=0))
    return np.asarray(np.nan_to_num(divide(apart, error)))


def compare_pairs(
    differences: Float[Array, "unit *cell"], *, seed: int, permutations: int = 4095
) -> Float[np.ndarray, "*cell"]:
    """Two-sided p for each cell of paired differences, adjusted for all cells: signs are dealt to whole units.

    If a pair's two members are alike, its difference may as well have the other sign. The statistic of a
    cell is the mean over its standard error; p = (1 + deals whose largest statistic over cells is as
    large) / (1 + deals), over all deals of signs where they are no more than `permutations`, which then
    count the data once.

    Args:
        differences: one row per passage or prompt. A cell with a NaN is left out.
        seed: the same seed gives the same p.
        permutations: deals to draw, or the most to count.

    Returns:
        In (0, 1]; NaN where a cell is not known for all units, and everywhere for fewer than two units.

    Source: Nichols & Holmes 2002, "Nonparametric permutation tests for functional neuroimaging".
    """
    rows = to_float64(differences)
    shape, rows = rows.shape[1:], rows.reshape(len(rows), math.prod(rows.shape[1:]))
    known, p = ~np.isnan(rows).any(axis=0), np.full(rows.shape[1], np.nan)
    if len(rows) > 1 and known.any():
        signs = _signs(len(rows), seed, permutations)
        largest = _paired(rows[:, known], signs).max(axis=1)
        seen = _paired(rows[:, known], np.ones((1, len(rows))))[0]
        as_large = (largest[:, None] >= seen * (1 - 1e-9)).sum(axis=0)
        exact = len(signs) == 2 ** len(rows)
        p[known] = as_large / len(signs) if exact else (1 + as_large) / (1 + len(signs))
    return p.reshape(shape)


def _signs(units: int, seed: int, permutations: int) -> Float[np.ndarray, "deal unit"]:
    if units < 60 and 2**units <= permutations + 1:
        deals = np.arange(2**units)
        return 1.0 - 2.0 * ((deals[:, None] >> np.arange(units)) & 1)
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, units))


def _paired(
    rows: Float[np.ndarray, "unit cell"], signs: Float[np.ndarray, "deal unit"]
) -> Float[np.ndarray, "deal cell"]:
    n = len(rows)
    mean, square = np.abs(signs @ rows) / n, (rows**2).mean(axis=0)
    error = np.sqrt(np.maximum(square - mean**2, 1e-24 * square) / (n - 1))
    return np.asarray(np.nan_to_num(divide(mean, error)))
