"""Quantiles over tokens, with intervals over documents, and tokens compared at equal positions.

Tokens of one document are alike, so a quantile of all tokens has an interval that draws whole documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from layerscope.maths.arrays import Array, divide, to_float64
from layerscope.maths.bootstrap import Interval, interval_of_draws, resampled_counts

_TIE = 1e-9


def weighted_quantiles(
    values: Float[Array, "token *cell"], weights: Float[Array, "token"], quantiles: Sequence[float]
) -> Float[np.ndarray, "quantile *cell"]:
    """Quantiles of weighted values, cell by cell; NaN is a missing value.

    The inverse of the weighted distribution function, averaged over the step where it has one: with equal
    weights, the median of an even number of values lies between the middle two.

    Args:
        values: one row for each token.
        weights: how much each token counts, ≥ 0.
        quantiles: in [0, 1].

    Returns:
        Quantiles in the units of the values; NaN where no token has both a value and a weight.

    Source: Hyndman & Fan 1996, definition 2, with weights.
    """
    rows = to_float64(values)
    flat = rows.reshape(len(rows), -1)
    order = np.argsort(flat, axis=0, kind="stable")  # NaNs go last
    ordered = np.take_along_axis(flat, order, axis=0)
    heavy = np.where(np.isnan(ordered), 0.0, to_float64(weights)[order])
    found = np.stack([_at(ordered, heavy, quantile) for quantile in quantiles])
    return found.reshape(len(quantiles), *rows.shape[1:])


def _at(ordered: np.ndarray, heavy: np.ndarray, quantile: float) -> np.ndarray:
    """One quantile of each column, from its values in order and their weights."""
    if not len(ordered):
        return np.full(ordered.shape[1], np.nan)
    reached = np.cumsum(heavy, axis=0)
    total = reached[-1]
    wanted, tie = quantile * total, _TIE * total
    low = np.argmax((reached >= wanted - tie) & (heavy > 0), axis=0)
    high = np.argmax((reached > wanted + tie) & (heavy > 0), axis=0)
    columns = np.arange(ordered.shape[1])
    # Behind the last step there is no higher value: argmax of nothing is 0, where the lower one counts.
    above = (reached > wanted + tie) & (heavy > 0)
    high = np.where(above.any(axis=0), high, low)
    middle = (ordered[low, columns] + ordered[high, columns]) / 2
    return np.where(total > 0, middle, np.nan)


@dataclass(frozen=True, eq=False)
class QuantileDraws:
    """A quantile and its resamples, from which intervals of it and of sums and ratios of its cells follow.

    The same seed and the same documents give the same draws of documents, whatever the values are: draws
    of two quantities may be subtracted, draw by draw.

    Attributes:
        value: of the data.
        draws: of each resample of the documents.
        units: number of documents.
        present: documents that have a value, by cell.
    """

    value: Float[np.ndarray, "*cell"]
    draws: Float[np.ndarray, "draw *cell"]
    units: int
    present: Int[np.ndarray, "*cell"]

    def interval(self, level: float = 0.95) -> Interval:
        """The interval of every cell; NaN where fewer than two documents have a value."""
        interval = interval_of_draws(self.value, self.draws, units=self.units, level=level)
        low, high = (np.where(self.present < 2, np.nan, end) for end in (interval.low, interval.high))
        # Where draws are skewed, an end could pass the value itself.
        low, high = np.asarray(np.minimum(low, self.value)), np.asarray(np.maximum(high, self.value))
        return Interval(self.value, low, high, self.present)


def quantile_draws(
    values: Float[Array, "token *cell"],
    documents: Int[np.ndarray, "token"],
    quantile: float = 0.5,
    *,
    units: int,
    seed: int,
    weights: Float[Array, "token"] | None = None,
    resamples: int = 1000,
) -> QuantileDraws:
    """A quantile over all tokens, and again over the tokens of documents drawn anew.

    Args:
        values: one row for each token; NaN is a missing value.
        documents: number of the document of each token, 0 .. units - 1.
        quantile: in [0, 1].
        units: number of documents.
        seed: the same seed gives the same draws of documents.
        weights: how much each token counts; alike, if left out.
        resamples: draws of the documents.

    Source: Efron & Tibshirani 1993.
    """
    rows = to_float64(values)
    shape, flat = rows.shape[1:], rows.reshape(len(rows), math.prod(rows.shape[1:]))
    base = np.ones(len(rows)) if weights is None else to_float64(weights)
    used = ~np.isnan(flat) & (base[:, None] > 0)
    present = np.array([used[documents == unit].any(axis=0) for unit in range(units)]).sum(axis=0)
    counts = resampled_counts(units, seed=seed, resamples=resamples)
    return QuantileDraws(
        value=weighted_quantiles(flat, base, [quantile])[0].reshape(shape),
        draws=_draws(flat, documents, base, quantile, counts).reshape(resamples, *shape),
        units=units,
        present=present.reshape(shape),
    )


def _draws(
    flat: np.ndarray, documents: np.ndarray, base: np.ndarray, quantile: float, counts: np.ndarray
) -> np.ndarray:
    order = np.argsort(flat, axis=0, kind="stable")
    ordered = np.take_along_axis(flat, order, axis=0)
    whose, heavy = documents[order], np.where(np.isnan(ordered), 0.0, base[order])
    if not len(flat):
        return np.full((len(counts), flat.shape[1]), np.nan)
    return np.stack([_at(ordered, heavy * drawn[whose], quantile) for drawn in counts])


def matched_weights(
    members: Bool[np.ndarray, "token"], strata: Int[np.ndarray, "token"]
) -> Float[np.ndarray, "token"]:
    """Weights that give the members the same distribution over strata that all tokens have.

    So a category whose tokens stand early in their sentences or texts is compared with others as if it
    stood where all tokens stand. Strata in which it has no token are left out for it.

    Args:
        members: which tokens belong to the category.
        strata: a number for each token, of its range of positions.

    Returns:
        A weight ≥ 0 for each token, 0 for others than members; their sum is 1 where there is a member.

    Source: direct standardisation.
    """
    width = int(strata.max(initial=0)) + 1
    everyone = np.bincount(strata, minlength=width).astype(np.float64)
    mine = np.bincount(strata[members], minlength=width).astype(np.float64)
    share = np.where(mine > 0, divide(everyone, mine), 0.0)
    weights = np.where(members, share[strata], 0.0)
    total = weights.sum()
    return np.asarray(weights / total if total else weights)
