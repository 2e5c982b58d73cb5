"""Do the members of a set lie closer together than members of other sets?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from layerscope.maths.arrays import divide


def mean_pairwise_cosine(
    vectors: Float[np.ndarray, "*batch member width"],
    *,
    known: Bool[np.ndarray, "*batch member"] | None = None,
    fewest: int = 5,
) -> Float[np.ndarray, "*batch"]:
    """Mean cosine over all pairs of members of each set: (‖Σ v̂‖² − n) / (n (n − 1)).

    Args:
        vectors: one per member.
        known: members that have a vector; the others do not count, nor do zero vectors.
        fewest: known members below which the mean is NaN.

    Returns:
        In [-1/(n − 1), 1]; 0 for vectors without relation.

    Source: METHODS of SVD directions, after Mimno et al. 2011, "Optimizing semantic coherence in topic
    models": coherence of the top words of a topic.
    """
    vectors = np.asarray(vectors)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    there = lengths[..., 0] > 0 if known is None else known & (lengths[..., 0] > 0)
    units = np.where(there[..., None], vectors / np.where(lengths > 0, lengths, 1), 0)
    n = there.sum(-1).astype(np.float64)
    total = (units.sum(-2) ** 2).sum(-1)
    return np.where(n >= fewest, divide(total - n, n * (n - 1)), np.nan)


@dataclass(frozen=True)
class CommonPart:
    """What all members of a set of vectors share.

    Attributes:
        mean: [width]
        leading: [direction width], orthonormal principal directions.
    """

    mean: np.ndarray
    leading: np.ndarray

    def taken_from(self, vectors: Float[np.ndarray, "*batch width"]) -> Float[np.ndarray, "*batch width"]:
        """Vectors less the mean and less what lies along the leading directions."""
        centred = vectors - self.mean
        return centred - (centred @ self.leading.T) @ self.leading


def common_part(
    vectors: Float[np.ndarray, "member width"], number: int, *, at_once: int = 8192
) -> CommonPart:
    """The mean of vectors and their leading principal directions.

    Embeddings of words share a few directions, of frequency above all, along which nearly any two are alike or
    opposite; what is left tells meanings apart.

    Args:
        vectors: one per member.
        number: of leading directions; the source takes width / 100.
        at_once: members that are copied to float64 together.

    Source: Mu & Viswanath 2018, "All-but-the-top: simple and effective postprocessing for word representations".
    """
    width = vectors.shape[1]
    mean = vectors.mean(axis=0, dtype=np.float64)
    square = np.zeros((width, width))
    for start in range(0, len(vectors), at_once):
        centred = vectors[start : start + at_once] - mean
        square += centred.T @ centred
    leading = np.linalg.eigh(square)[1][:, width - number :].T
    return CommonPart(mean.astype(vectors.dtype), leading.astype(vectors.dtype))


def share_of_commonest(labels: np.ndarray, *, fewest: int = 5) -> float:
    """The share of the commonest label among those that are not empty: 1 where all are alike.

    Args:
        labels: text; "" is unknown.
        fewest: known labels below which the share is NaN.
    """
    known = labels[labels != ""]
    if len(known) < fewest:
        return float("nan")
    return float(np.unique(known, return_counts=True)[1].max() / len(known))


def cooccurrence_vectors(
    texts: list[np.ndarray], size: int, *, window: int = 5, width: int = 100, seed: int = 0
) -> Float[np.ndarray, "{size} _"]:
    """Vectors of tokens by the company they keep in texts; zero for a token that does not occur.

    Counts of pairs within a window, weighted by 1 / distance; positive pointwise mutual information with
    contexts smoothed by a power of 0.75; leading singular directions, weighted by the root of their value.

    Args:
        texts: token ids of each text; pairs never cross texts.
        size: of the vocabulary.
        window: largest distance of a pair.
        width: entries of a vector; fewer where the texts allow no more.
        seed: of the random range that the iteration starts from.

    Source: Levy, Goldberg & Dagan 2015, "Improving distributional similarity with lessons learned from
    word embeddings".
    """
    from scipy.sparse import coo_matrix

    rows, columns, weights = [], [], []
    for ids in texts:
        for distance in range(1, min(window, len(ids) - 1) + 1):
            a, b = ids[:-distance], ids[distance:]
            rows += [a, b]
            columns += [b, a]
            weights += [np.full(2 * len(a), 1 / distance)]
    if not rows:
        return np.zeros((size, 1))
    index = np.concatenate(rows), np.concatenate(columns)
    counts = coo_matrix((np.concatenate(weights), index), shape=(size, size)).tocsr().tocoo()
    total = counts.data.sum()
    of_row = np.asarray(counts.sum(axis=1)).ravel()
    smoothed = of_row**0.75
    chance = of_row[counts.row] * smoothed[counts.col] / smoothed.sum()
    information = np.maximum(np.log(counts.data / chance), 0)
    positive = coo_matrix((information, (counts.row, counts.col)), shape=(size, size)).tocsr()
    rank = min(width, int((of_row > 0).sum()) - 1, size - 1)
    if total == 0 or rank < 1 or positive.nnz == 0:
        return np.zeros((size, 1))
    u, scales = _leading(positive, rank, np.random.default_rng(seed))
    return np.asarray(u * np.sqrt(scales))


def _leading(matrix: Any, rank: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Leading left singular vectors of a sparse matrix, by a random range that is sharpened four times.

    Source: Halko, Martinsson & Tropp 2011, "Finding structure with randomness", algorithm 4.4.
    """
    number = min(rank + 10, matrix.shape[1])
    within = np.linalg.qr(matrix @ generator.standard_normal((matrix.shape[1], number)))[0]
    for _ in range(4):
        within = np.linalg.qr(matrix @ np.linalg.qr(matrix.T @ within)[0])[0]
    u, scales, _ = np.linalg.svd((matrix.T @ within).T, full_matrices=False)
    return (within @ u)[:, :rank], scales[:rank]
