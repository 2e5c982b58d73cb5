"""Do two depths arrange the same tokens alike? Centred kernel alignment, from one small set of tokens at a time.

Two representations of the same tokens are alike where tokens that lie close in one lie close in the
other, however the space was turned. The comparison rests on products between tokens, so the two may
even differ in width; and it can be made on many small sets, whose numbers are averaged before the ratio
is taken.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from layerscope.maths.arrays import Array, divide, to_float64

FEWEST = 4
"""Tokens that a set must have: the unbiased estimate divides by n − 3."""


def dependence(states: Float[Array, "depth token width"]) -> Float[np.ndarray, "depth depth"]:
    """Unbiased dependence (HSIC) between every pair of depths on one set of tokens, with linear kernels.

    With K̃ and L̃ the products between tokens at two depths, their diagonals set to zero, and n tokens:
    [tr(K̃L̃) + (Σ K̃)(Σ L̃) / ((n−1)(n−2)) − 2 (Σ K̃L̃) / (n−2)] / (n (n−3)). Its expectation does not
    depend on n, so the numbers of small sets can be averaged; the plain estimate grows as sets shrink,
    and finds two unrelated representations alike.

    Args:
        states: the same tokens at every depth, n of them.

    Returns:
        In units of the states to the fourth, possibly below zero; NaN for fewer than four tokens.

    Source: Song et al. 2012, "Feature selection via dependence maximization", equation 5; Nguyen, Raghu
    & Kornblith 2021, "Do wide and deep networks learn the same things?", for its use in small sets.
    """
    found = to_float64(states)
    depths, n, _ = found.shape
    if n < FEWEST:
        return np.full((depths, depths), np.nan)
    products = np.matmul(found, found.transpose(0, 2, 1))
    products[:, np.arange(n), np.arange(n)] = 0
    flat, rows = products.reshape(depths, -1), products.sum(axis=-1)
    sums = rows.sum(axis=-1)
    traces, through = flat @ flat.T, rows @ rows.T
    crossed = np.outer(sums, sums) / ((n - 1) * (n - 2))
    return np.asarray((traces + crossed - 2 * through / (n - 2)) / (n * (n - 3)))


def alignment(dependences: Float[Array, "*batch depth depth"]) -> Float[np.ndarray, "*batch depth depth"]:
    """Centred kernel alignment (CKA) of every pair of depths: HSIC_ab / √(HSIC_aa HSIC_bb).

    Blind to turning, to a common shift and to scale. A few very long states, such as those of the first
    token, dominate it: leave them out.

    Args:
        dependences: as `dependence` gives them, averaged over sets of tokens.

    Returns:
        A pure number, 1 on the diagonal; up to 1 for the average of enough sets, though a single small
        set can give more, or less than 0; NaN where a depth does not depend on itself.

    Source: Kornblith et al. 2019, "Similarity of neural network representations revisited".
    """
    found = to_float64(dependences)
    own = np.diagonal(found, axis1=-2, axis2=-1)
    lengths = np.sqrt(np.where(own > 0, own, np.nan))
    return np.asarray(divide(found, lengths[..., :, None] * lengths[..., None, :]))
