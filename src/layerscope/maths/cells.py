"""How well are labels told apart among cases that are alike in something else?

Cases fall into cells (tokens at equal absolute position). Within a cell every label counts alike, so
whoever knows the cell and nothing else scores exactly 1 / K on K labels, whatever they guess: the
score less that chance is 0 for them, and 1 for one who knows the label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from layerscope.maths.arrays import divide
from layerscope.maths.bootstrap import Interval, interval_of_draws, resampled_counts

_AT_ONCE = 8_000_000


@dataclass(frozen=True, eq=False)
class WithinCells:
    """A score above chance within cells.

    Attributes:
        interval: the score, 0 at chance and 1 where all is right, with its interval over units; n counts the
            units that have a case that counts.
        draws: the score of each resample of the units, for comparisons over a family of scores.
        recall: share right of each label in each cell, NaN where the cell does not count.
        cases: how many cases of each label each cell holds.
        counted: cases that count: those in a cell with at least two labels of enough cases each.
    """

    interval: Interval
    draws: Float[np.ndarray, "draw *rest"]
    recall: Float[np.ndarray, "cell label *rest"]
    cases: Int[np.ndarray, "cell label"]
    counted: int


def score_within_cells(
    right: Bool[np.ndarray, "case *rest"],
    *,
    labels: Int[np.ndarray, "case"],
    cells: Int[np.ndarray, "case"],
    units: Int[np.ndarray, "case"],
    fewest: int = 2,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> WithinCells:
    """(balanced share of right guesses − 1 / K) / (1 − 1 / K), averaged over cells by their cases.

    The balanced share is the mean over a cell's K labels of the share right among the cases of each.
    A label with fewer than `fewest` cases in a cell does not count there, nor does a cell with one
    label left. In each resample, labels that were not drawn are left out and K is counted anew, so
    chance stays exact.

    Args:
        right: whether each guess is right; further dimensions (depth) are scored each for itself.
        labels: the true label of each case, 0, 1, 2, ...
        cells: the cell of each case, 0, 1, 2, ...
        units: what is independent (the prompt of each case); resampled whole.
        fewest: cases that a label needs in a cell.
        seed, level, resamples: of the bootstrap over units.

    Returns:
        The score, NaN where no cell counts.
    """
    shape = (int(cells.max()) + 1, int(labels.max()) + 1)
    kinds = cells * shape[1] + labels
    cases = np.bincount(kinds, minlength=shape[0] * shape[1]).reshape(shape)
    enough = cases >= fewest
    enough &= (enough.sum(axis=1) >= 2)[:, None]
    flat = right.reshape(len(right), int(np.prod(right.shape[1:]))).astype(np.float64)
    names, unit = np.unique(units, return_inverse=True)
    numbers, hits = _sums(flat, kinds, unit, len(names), enough.size)
    value, draws = _resampled(numbers, hits, enough, seed=seed, resamples=resamples)
    counted = int(
        (numbers[:, enough.reshape(-1)].sum(axis=1) > 0).sum()
    )  # units without such a case tell nothing
    interval = interval_of_draws(value, draws, units=counted, level=level)
    rest = right.shape[1:]
    recall = divide(hits.sum(0), cases.reshape(-1, 1).astype(float))
    recall[~enough.reshape(-1)] = np.nan
    parts = (interval.value, interval.low, interval.high, interval.n)
    return WithinCells(
        interval=Interval(*(part.reshape(rest) for part in parts)),
        draws=draws.reshape(-1, *rest),
        recall=recall.reshape(*shape, *rest),
        cases=cases,
        counted=int(cases[enough].sum()),
    )


def _resampled(
    numbers: Float[np.ndarray, "unit kind"],
    hits: Float[np.ndarray, "unit kind column"],
    enough: Bool[np.ndarray, "cell label"],
    *,
    seed: int,
    resamples: int,
) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, "draw column"]]:
    """The scores of all units, and of each resample of them."""
    held = np.flatnonzero(enough)  # pairs of cell and label that count, cell by cell
    cell_of, columns = held // enough.shape[1], hits.shape[2]
    kept = numbers[:, held], hits[:, held].reshape(len(hits), len(held) * columns)
    value = _scores(np.ones((1, len(hits))), *kept, cell_of, columns)[0]
    counts = resampled_counts(len(hits), seed=seed, resamples=resamples)
    blocks = _blocks(len(counts), kept[1].shape[1])
    return value, np.concatenate([_scores(counts[block], *kept, cell_of, columns) for block in blocks])


def right_within_cells(
    probabilities: Float[np.ndarray, "case *rest label"],
    *,
    labels: Int[np.ndarray, "case"],
    cells: Int[np.ndarray, "case"],
    fewest: int = 2,
) -> Bool[np.ndarray, "case *rest"]:
    """Whether the likeliest of the labels that a case's cell holds is its own.

    Without this restriction a guesser who does not even know the cell would fall below chance, naming
    labels that the cell does not hold.

    Args:
        probabilities: of every label, last dimension.
        labels: the true label of each case.
        cells: the cell of each case.
        fewest: cases that a label needs in a cell to be held by it, as in `score_within_cells`.
    """
    n_labels = probabilities.shape[-1]
    cases = np.zeros((int(cells.max()) + 1, n_labels), dtype=np.int64)
    np.add.at(cases, (cells, labels), 1)
    held = (cases >= fewest)[cells]
    held = held.reshape(len(labels), *[1] * (probabilities.ndim - 2), n_labels)
    guesses = np.where(held, probabilities, -1.0).argmax(axis=-1)
    return np.asarray(guesses == labels.reshape(-1, *[1] * (guesses.ndim - 1)))


def _sums(
    flat: Float[np.ndarray, "case column"],
    kinds: Int[np.ndarray, "case"],
    unit: Int[np.ndarray, "case"],
    n_units: int,
    n_kinds: int,
) -> tuple[Float[np.ndarray, "unit kind"], Float[np.ndarray, "unit kind column"]]:
    """For each unit and each pair of cell and label: cases, and right guesses in every column."""
    numbers, hits = np.zeros((n_units, n_kinds)), np.zeros((n_units, n_kinds, flat.shape[1]))
    np.add.at(numbers, (unit, kinds), 1.0)
    np.add.at(hits, (unit, kinds), flat)
    return numbers, hits


def _scores(
    weights: Float[np.ndarray, "draw unit"],
    numbers: Float[np.ndarray, "unit pair"],
    hits: Float[np.ndarray, "unit hit"],
    cell_of: Int[np.ndarray, "pair"],
    columns: int,
) -> Float[np.ndarray, "draw column"]:
    """Of each draw of units; pairs of one cell stand together."""
    if not len(cell_of):
        return np.full((len(weights), columns), np.nan)
    number = weights @ numbers
    share = (weights @ hits).reshape(*number.shape, -1)
    share /= np.where(number > 0, number, 1.0)[..., None]  # no case, no hit: 0, and not counted in k
    starts = np.flatnonzero(np.diff(cell_of, prepend=-1))
    k = np.add.reduceat((number > 0).astype(np.float64), starts, axis=1)
    counts = k >= 2
    chance = 1 / np.where(counts, k, 2.0)[..., None]
    mean = np.add.reduceat(share, starts, axis=1) / np.where(counts, k, 1.0)[..., None]
    weight = np.add.reduceat(number, starts, axis=1) * counts
    total = ((mean - chance) / (1 - chance) * weight[..., None]).sum(axis=1)
    return divide(total, weight.sum(axis=1)[:, None])


def _blocks(length: int, width: int) -> Iterator[slice]:
    size = max(1, _AT_ONCE // max(1, width))
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
