"""Do two groups of prompts differ, and which of several do? Tests by permutation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, to_float64
from layerscope.maths.bootstrap import bootstrap_difference

_AT_ONCE = 1_000_000  # numbers held at one time: 8 MB


@dataclass(frozen=True)
class PermutationTest:
    """A difference of means and how often chance makes one as large.

    Attributes:
        difference: mean(a) − mean(b); NaN where a group has fewer than two values.
        p: two-sided, in (0, 1]; NaN likewise.
        n_a: values in the first group, NaNs left out.
        n_b: values in the second.
        exact: whether every split was counted.
    """

    difference: float
    p: float
    n_a: int
    n_b: int
    exact: bool


@dataclass(frozen=True)
class Contrast:
    """Two groups of a family of comparisons.

    Attributes:
        a: name of the first group.
        b: name of the second.
        difference: mean of the first − mean of the second; NaN, as all below, where a group has
            fewer than two values.
        low: lower end of the interval of the difference, for this pair alone.
        high: upper end.
        p: two-sided, of this pair alone.
        p_adjusted: by Holm's method over all pairs.
        n_a: values in the first group, NaNs left out.
        n_b: values in the second.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    n_a: int
    n_b: int


def permutation_difference(
    a: Float[Array, "n"], b: Float[Array, "m"], *, seed: int, resamples: int = 9999
) -> PermutationTest:
    """Two-sided permutation test of the difference of two means.

    p is the share of the ways to deal the pooled values into groups of these sizes whose
    |difference| is at least the one seen. All are counted when they are no more than `resamples`;
    else that many are drawn, and p = (1 + as large) / (1 + drawn), which is never zero and never
    too small. Random choice of prompts is all it assumes under the null that the groups are alike;
    groups of equal mean but very unequal size and spread can be told apart too.

    Args:
        a: one value per unit; NaNs are left out.
        b: likewise.
        seed: the same seed gives the same p.
        resamples: splits to draw, or the most to count.

    Source: Phipson & Smyth 2010, "Permutation p-values should never be zero".
    """
    first, second = _present(a), _present(b)
    n, m = len(first), len(second)
    if min(n, m) < 2:
        return PermutationTest(math.nan, math.nan, n, m, exact=False)
    exact = math.comb(n + m, n) <= resamples
    large, splits = _as_large(first, second, seed=None if exact else seed, resamples=resamples)
    p = large / splits if exact else (1 + large) / (1 + splits)
    return PermutationTest(float(first.mean() - second.mean()), float(p), n, m, exact=exact)


def pairwise_contrasts(
    values: Float[Array, "unit"],
    groups: Sequence[str],
    *,
    seed: int,
    level: float = 0.95,
    permutations: int = 9999,
    resamples: int = 2000,
) -> list[Contrast]:
    """Every pair of groups compared: difference, its interval, p, and p adjusted for the number of pairs.

    Pairs come in the order in which the groups first appear. A group with fewer than two values
    gives NaN and stays in the list; such pairs do not count in the adjustment. Intervals are for one
    pair at a time. A pair's own numbers do not depend on which other groups there are.

    Args:
        values: one value per unit; NaNs are left out.
        groups: the group of each unit.
        seed: the same seed gives the same contrasts.
        level: of the intervals, in (0, 1).
        permutations: splits per test, see `permutation_difference`.
        resamples: draws per interval, see `bootstrap_difference`.

    Source: Holm 1979; Phipson & Smyth 2010; Hesterberg 2015.
    """
    if len(groups) != len(values):
        raise ValueError(f"expected one group per value, found {len(groups)} for {len(values)}")
    found = to_float64(values)
    members = {name: found[[group == name for group in groups]] for name in dict.fromkeys(groups)}
    pairs = list(combinations(members, 2))
    tests = [
        permutation_difference(members[a], members[b], seed=seed, resamples=permutations) for a, b in pairs
    ]
    spans = [_span(members[a], members[b], seed=seed, level=level, resamples=resamples) for a, b in pairs]
    adjusted = holm([test.p for test in tests])
    return [
        Contrast(a, b, test.difference, low, high, test.p, float(p), test.n_a, test.n_b)
        for (a, b), test, (low, high), p in zip(pairs, tests, spans, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float] | Float[Array, "test"]) -> Float[np.ndarray, "test"]:
    """p values adjusted so that the chance of any false alarm in the family stays below the level.

    In order of size, the i-th of m (from 0) is multiplied by m − i, kept at least as large as the
    one before and at most 1. Needs no independence, and rejects whatever Bonferroni would.

    Returns:
        In the order given, in [0, 1], none below its own p; NaN stays NaN and does not count in m.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted = np.array(to_float64(np.asarray(p_values)))
    known = np.flatnonzero(~np.isnan(adjusted))
    order = known[np.argsort(adjusted[known], kind="stable")]
    stepped = adjusted[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def _span(
    a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"], *, seed: int, level: float, resamples: int
) -> tuple[float, float]:
    interval = bootstrap_difference(a, b, seed=seed, level=level, resamples=resamples)
    return float(interval.low), float(interval.high)


def _as_large(
    a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"], *, seed: int | None, resamples: int
) -> tuple[int, int]:
    """Splits whose |difference| reaches the one seen, and splits tried: all of them without a seed."""
    raw = np.concatenate([a, b])
    pooled = raw - raw.mean()
    # Equal splits count as equal, however the rounding of their sums fell out.
    tie = 1e-9 * np.abs(pooled).max() + 1e-14 * np.abs(raw).max()
    sums = _every_split(pooled, len(a)) if seed is None else _random_splits(pooled, len(a), seed, resamples)
    large = splits = 0
    for block in sums:
        # With a pooled mean of zero, mean(a) − mean(b) = sum(a) (1/n + 1/m).
        large += int((abs(block) * (1 / len(a) + 1 / len(b)) >= abs(a.mean() - b.mean()) - tie).sum())
        splits += block.size
    return large, splits


def _every_split(pooled: Float[np.ndarray, "unit"], n: int) -> Iterator[Float[np.ndarray, "split"]]:
    """Sums of the first group in every split, in blocks."""
    chosen = chain.from_iterable(combinations(range(len(pooled)), n))
    size = n * max(1, _AT_ONCE // n)
    while (block := np.fromiter(islice(chosen, size), dtype=np.intp)).size:
        yield pooled[block.reshape(-1, n)].sum(axis=1)


def _random_splits(
    pooled: Float[np.ndarray, "unit"], n: int, seed: int, resamples: int
) -> Iterator[Float[np.ndarray, "split"]]:
    """Sums of the first group in random splits, in blocks."""
    rng, size = np.random.default_rng(seed), max(1, _AT_ONCE // len(pooled))
    for start in range(0, resamples, size):
        rows = np.broadcast_to(pooled, (min(size, resamples - start), len(pooled)))
        yield rng.permuted(rows, axis=1)[:, :n].sum(axis=1)


def _present(values: Float[Array, "unit"]) -> Float[np.ndarray, "known"]:
    found = to_float64(values)
    return np.asarray(found[~np.isnan(found)])


def sign_flip_p(differences: Float[Array, "pair"], *, seed: int, resamples: int = 9999) -> tuple[float, int]:
    """Two-sided p of matched pairs having a mean difference of zero, and the number of pairs.

    Under the null each pair's difference might as well have had the other sign. All sign patterns are
    counted when they are no more than `resamples`; else that many are drawn, and p = (1 + as large) / (1 + drawn).

    Args:
        differences: first less second of each pair; NaNs are left out.
        seed: the same seed gives the same p.
        resamples: sign patterns to draw, or the most to count.

    Source: Fisher 1935; Phipson & Smyth 2010.
    """
    known = _present(differences)
    n = len(known)
    if n < 2:
        return math.nan, n
    exact = 2**n <= resamples
    if exact:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1, 1], size=(resamples, n))
    tie = 1e-9 * np.abs(known).sum()
    large = int((np.abs(signs @ known) >= abs(known.sum()) - tie).sum())
    return (large / len(signs) if exact else (1 + large) / (1 + len(signs))), n


def least_p_of_splits(n: int, m: int, *, resamples: int = 9999) -> float:
    """The smallest p that `permutation_difference` could give two groups of these sizes; NaN below two units each.

    Of all splits only the one seen reaches it, and its mirror image where the groups are equally large.
    """
    if min(n, m) < 2:
        return math.nan
    splits = math.comb(n + m, n)
    return (1 + (n == m)) / splits if splits <= resamples else 1 / (1 + resamples)


def least_p_of_signs(n: int, *, resamples: int = 9999) -> float:
    """The smallest p that flipping signs could give n units, all pointing one way; NaN below two."""
    if n < 2:
        return math.nan
    return 2 / 2**n if n < 60 and 2**n <= resamples else 1 / (1 + resamples)
