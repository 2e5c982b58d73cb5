"""How well can the index of a unit be told from the position of its token alone?

Units (words, sentences, names) follow one another and have random lengths, so the position at which
one ends gives its index away in part: the third token can end the third word, the second or the first,
but never the fourth. A probe that knew the position and nothing else could do exactly this well, and no
better; what it can do is computed here without a sample, from the distribution of lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class Ceiling:
    """What the position alone allows.

    Attributes:
        accuracy: share of right guesses of the best guesser that sees the position only, in [0, 1].
        recall: that guesser's share of right guesses among tokens of each index.
        guesses: what it guesses at each position, counted from the first token behind the prefix; -1
            where no unit can end.
    """

    accuracy: float
    recall: Float[np.ndarray, "index"]
    guesses: Int[np.ndarray, "position"]


def joint_of_ends(lengths: Sequence[Float[np.ndarray, "_"]]) -> Float[np.ndarray, "index position"]:
    """P(index, position of the last token), each index being equally likely.

    Lengths are independent, so the position of an end is distributed as their sum: one convolution
    for each unit.

    Args:
        lengths: for each unit in order, the probability of each number of tokens 0, 1, 2, ... between
            the end of the unit before (for the first: the end of the prefix) and its own end.

    Returns:
        Probabilities that sum to 1; column p is the p-th token behind the prefix, from 0.
    """
    _check(lengths)
    return _stacked(_ends(lengths))


def joint_of_beginnings(lengths: Sequence[Float[np.ndarray, "_"]]) -> Float[np.ndarray, "index position"]:
    """P(index, position of the first token) for units that follow one another without a gap; see `joint_of_ends`."""
    _check(lengths)
    starts = [np.array([0.0, 1.0]), *(np.concatenate([[0.0], end]) for end in _ends(lengths)[:-1])]
    return _stacked(starts)


def ceiling(joint: Float[np.ndarray, "index position"]) -> Ceiling:
    """The best guess at each position is the likeliest index: accuracy is the sum of max P(index, position).

    Of equally likely indices the lowest is guessed; that decides recalls, not the accuracy.

    Args:
        joint: P(index, position), from `joint_of_ends` or counted.

    Source: definition of the Bayes classifier.
    """
    guesses = joint.argmax(axis=0)
    guesses[joint.max(axis=0) == 0] = -1
    of_index = joint.sum(axis=1)
    hit = np.array([row[guesses == index].sum() for index, row in enumerate(joint)])
    return Ceiling(float(joint.max(axis=0).sum()), hit / of_index, guesses)


def _check(lengths: Sequence[Float[np.ndarray, "_"]]) -> None:
    if not lengths or any(not np.isclose(row.sum(), 1) or (row < 0).any() for row in lengths):
        raise ValueError("expected, for each unit, probabilities of 0, 1, 2, ... tokens that sum to 1")


def _ends(lengths: Sequence[Float[np.ndarray, "_"]]) -> list[Float[np.ndarray, "_"]]:
    """Distribution of the number of tokens up to the end of each unit."""
    ends, so_far = [], np.array([1.0])
    for row in lengths:
        so_far = np.convolve(so_far, row)
        ends.append(so_far)
    return ends


def _stacked(rows: Sequence[Float[np.ndarray, "_"]]) -> Float[np.ndarray, "index position"]:
    """Rows of unequal length, from "number of tokens so far" to "place of that token", with equal weights."""
    longest = max(len(row) for row in rows)
    whole = np.stack([np.pad(row, (0, longest - len(row))) for row in rows])
    return np.asarray(whole[:, 1:] / len(rows))
