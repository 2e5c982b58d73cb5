"""Singular directions of weight matrices, on the side of the residual stream.

Matrices stand to the right of a state, x·M. A direction that M reads is a left singular vector, one that
it writes a right singular vector. Only the sides that lie in the residual stream are computed, and never
by way of a matrix larger than the smaller side of the weights. Works on numpy arrays and torch tensors,
in their own precision (at least float32), in batches.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from layerscope.maths.arrays import Array, at_least_float32, divide


class Directions(NamedTuple):
    """Singular directions, largest first; `reads` or `writes` is None where that side was not asked for."""

    scales: Float[Array, "*batch k"]
    reads: Float[Array, "*batch k width"] | None
    writes: Float[Array, "*batch k width"] | None


def product_directions(
    first: Float[Array, "*batch width rank"], second: Float[Array, "*batch rank width2"]
) -> Directions:
    """SVD of the product of two thin matrices, first·second, without forming it.

    With first = Q₁R₁ and secondᵀ = Q₂R₂, the product is Q₁ (R₁R₂ᵀ) Q₂ᵀ: only the rank × rank core is
    decomposed. For a head's W_V·W_O that is head_width instead of width, at (width / head_width)³ less
    cost, and no small singular values of rounding stand behind the true ones.

    Returns:
        `rank` directions of both sides.

    Source: Golub & Van Loan, "Matrix Computations", product SVD by QR.
    """
    linalg = _linalg(first)
    first, second = at_least_float32(first), at_least_float32(second)
    q_first, r_first = linalg.qr(first)
    q_second, r_second = linalg.qr(second.swapaxes(-1, -2))
    u, scales, v = linalg.svd(r_first @ r_second.swapaxes(-1, -2), full_matrices=False)
    return Directions(scales, (q_first @ u).swapaxes(-1, -2), v @ q_second.swapaxes(-1, -2))


def read_directions(matrix: Float[Array, "*batch width unit"]) -> Directions:
    """Left singular vectors of a matrix: what it reads. All singular values come with them.

    Where there are more units than entries of the stream, the triangular factor of the transposed matrix
    has the same left vectors and is square: its SVD costs a fraction.

    Source: Chan 1982, "An improved algorithm for computing the singular value decomposition".
    """
    linalg = _linalg(matrix)
    matrix = at_least_float32(matrix)
    if matrix.shape[-1] > matrix.shape[-2]:
        matrix = linalg.qr(matrix.swapaxes(-1, -2), mode="r")
        matrix = (matrix[1] if isinstance(matrix, tuple) else matrix).swapaxes(-1, -2)
    u, scales, _ = linalg.svd(matrix, full_matrices=False)
    return Directions(scales, u.swapaxes(-1, -2), None)


def write_directions(matrix: Float[Array, "*batch unit width"]) -> Directions:
    """Right singular vectors of a matrix: what it writes. See `read_directions`."""
    scales, vectors, _ = read_directions(matrix.swapaxes(-1, -2))
    return Directions(scales, None, vectors)


def gaps(scales: Float[Array, "*batch k"]) -> Float[np.ndarray, "*batch k"]:
    """Each singular value over the next; NaN for the last, and where the next is zero.

    Near 1, the two directions are defined only up to a rotation in the plane that they span.
    """
    scales = np.asarray(scales, dtype=np.float64)
    ratios = np.full(scales.shape, np.nan)
    ratios[..., :-1] = divide(scales[..., :-1], scales[..., 1:])
    return ratios


def near_equal(scales: Float[np.ndarray, "k"], *, ratio: float = 1.02) -> Int[np.ndarray, "k"]:
    """Which singular values belong together: the number of each one's subspace, from 0.

    A subspace holds a largest value and all that follow within `ratio` of it; its directions are defined
    only together. Anchored at the largest, so that a slowly falling spectrum is not one subspace.

    Args:
        scales: falling.
        ratio: of the largest value of a subspace to its smallest, at most.
    """
    numbers, anchor, number = np.zeros(len(scales), dtype=np.int64), np.inf, -1
    for place, scale in enumerate(np.asarray(scales, dtype=np.float64)):
        if number < 0 or anchor > ratio * scale:
            anchor, number = scale, number + 1
        numbers[place] = number
    return numbers


def random_rotation(size: int, *, generator: np.random.Generator) -> Float[np.ndarray, "{size} {size}"]:
    """A uniformly drawn orthogonal matrix.

    Source: Mezzadri 2007, "How to generate random matrices from the classical compact groups".
    """
    q, r = np.linalg.qr(generator.standard_normal((size, size)))
    return q * np.sign(np.diag(r))


def random_directions(
    number: int, width: int, *, generator: np.random.Generator
) -> Float[np.ndarray, "{number} {width}"]:
    """Uniformly drawn unit vectors."""
    drawn = generator.standard_normal((number, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def turned(
    scales: Float[np.ndarray, "k"], *, positive: Float[np.ndarray, "k"], negative: Float[np.ndarray, "k"]
) -> Bool[np.ndarray, "k"]:
    """Whether a direction's sign must be turned, so that "+" is the end that stands out further.

    A singular vector's sign is arbitrary. Here "+" is the end whose strongest token is stronger.

    Args:
        scales: singular values; where one is zero nothing is turned.
        positive: the largest score of any token.
        negative: the smallest.
    """
    return np.asarray((-negative > positive) & (scales > 0))


def _linalg(values: Array) -> Any:
    torch = sys.modules.get("torch")
    return torch.linalg if torch is not None and isinstance(values, torch.Tensor) else np.linalg


def alignment_p(cosines: Float[np.ndarray, "*batch"], width: int) -> Float[np.ndarray, "*batch"]:
    """How often a random direction lies as near to a given one, at either end: two-sided p of a cosine.

    The squared cosine of a fixed and a uniformly drawn direction is Beta(1/2, (width − 1)/2).

    Source: Cai, Fan & Jiang 2013, "Distributions of angles in random packing on spheres".
    """
    from scipy.special import betainc

    squared = np.clip(np.asarray(cosines, dtype=np.float64) ** 2, 0, 1)
    return np.asarray(betainc((width - 1) / 2, 0.5, 1 - squared))
