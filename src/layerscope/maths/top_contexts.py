"""The highest values of a stream, kept in memory that does not grow with it.

For each of many units, the `most` best places seen so far. Folding a stream in any pieces and any
order gives the same lists: places are compared by value and then by where they stand, and of
places that read alike only the best counts.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt64

from layerscope.maths.arrays import Array


def best_places(
    unit: Array, value: Array, text: Array, position: Array, alike: Array, *, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which of many places are among the best of their unit, and their ranks.

    The order is: higher values first; then earlier texts; then earlier positions. A place whose
    `alike` equals that of a better one of the same unit is left out.

    Args:
        unit: whose place it is, one whole number for each place.
        value: what is compared.
        text: number of the text.
        position: position in it.
        alike: equal for places that count once.
        most: how many are kept for each unit.

    Returns:
        Indices of the places kept, ordered by unit and rank, and their ranks from 0.
    """
    order = np.lexsort((position, text, -value, unit))
    order = order[_first_of_alike(unit[order], alike[order])]
    units = unit[order]
    starts = np.flatnonzero(np.r_[True, units[1:] != units[:-1]]) if len(units) else np.empty(0, dtype=int)
    lengths = np.diff(np.r_[starts, len(units)])
    rank = np.arange(len(units)) - np.repeat(starts, lengths)
    kept = rank < most
    return order[kept], rank[kept]


def _first_of_alike(unit: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """For places in order, whether none before is of the same unit and alike."""
    by_name = np.lexsort((np.arange(len(unit)), alike, unit))
    same = (unit[by_name][1:] == unit[by_name][:-1]) & (alike[by_name][1:] == alike[by_name][:-1])
    first = np.ones(len(unit), dtype=bool)
    first[by_name[1:][same]] = False
    return first


def fingerprints(ids: Int[np.ndarray, "batch token"], length: int) -> UInt64[np.ndarray, "batch token"]:
    """A number for the last `length` tokens at each position, equal for equal stretches.

    Where fewer stand before, it is that of all of them. Two different stretches share one with a
    chance of 2^-64.
    """
    mixed = scrambled(ids.astype(np.uint64) + np.uint64(1))
    result = np.zeros(ids.shape, dtype=np.uint64)
    for back in range(min(length, ids.shape[1])):
        salt = np.uint64(back * 0x9E3779B97F4A7C15 % 2**64)
        result[:, back:] += scrambled(mixed[:, : ids.shape[1] - back] + salt)
    return result


def scrambled(numbers: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Whole numbers to whole numbers that look random, one to one.

    Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64).
    """
    with np.errstate(over="ignore"):
        mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)))
