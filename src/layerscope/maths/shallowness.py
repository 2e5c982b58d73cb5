"""How shallow is what a set of contexts shares?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from layerscope.maths.ratios import share


def pair_agreement(labels: Int[np.ndarray, "context *label"]) -> float:
    """Share of the pairs of contexts whose labels are equal.

    Unlike the share of the commonest label it has the same expectation for few contexts as for many.

    Args:
        labels: one row for each context; a row of several numbers is equal where all are.

    Returns:
        In [0, 1]; NaN for fewer than two contexts.
    """
    n = len(labels)
    if n < 2:
        return float("nan")
    counts = np.unique(labels.reshape(n, -1), axis=0, return_counts=True)[1]
    return float((counts * (counts - 1)).sum() / (n * (n - 1)))


def coherence(vectors: Float[np.ndarray, "context feature"], texts: Int[np.ndarray, "context"]) -> float:
    """Mean cosine of the pairs of contexts that come from different texts.

    Pairs within a text are left out: what they share may be the text's subject, not the key's.

    Args:
        vectors: each of length 1, or 0 where a context has no feature.
        texts: whose context it is.

    Returns:
        NaN where no two contexts come from different texts.
    """
    different = texts[:, None] != texts[None, :]
    pairs = int(different.sum())
    if not pairs:
        return float("nan")
    return float((vectors @ vectors.T)[different].sum() / pairs)


def weighted_bags(
    contexts: Int[np.ndarray, "context place"], weights: Float[np.ndarray, "token"]
) -> tuple[Float[np.ndarray, "context feature"], Int[np.ndarray, "feature"]]:
    """Which tokens a context holds, each with its weight, scaled to length 1.

    Args:
        contexts: token ids; -1 where there is none. Repeats count once.
        weights: of each token id; tokens of weight 0 are no features.

    Returns:
        The vectors and the token id of each feature.
    """
    features = np.unique(contexts[contexts >= 0])
    features = features[weights[features] > 0]
    bags = np.zeros((len(contexts), len(features)))
    for row, context in enumerate(contexts):
        bags[row, np.isin(features, context)] = 1.0
    bags *= weights[features]
    lengths = np.linalg.norm(bags, axis=1, keepdims=True)
    return np.divide(bags, lengths, out=bags, where=lengths > 0), features


def rarity(contexts: Int[np.ndarray, "context place"], vocabulary: int) -> Float[np.ndarray, "token"]:
    """How rare each token is among contexts: the log of their number over that of those that hold it.

    Tokens that none holds weigh as much as one that a single context holds.

    Source: Spärck Jones 1972, inverse document frequency.
    """
    held = np.zeros(vocabulary)
    for context in contexts:
        held[np.unique(context[context >= 0])] += 1
    return np.asarray(np.log(max(1, len(contexts)) / np.maximum(held, 1)))


def context_radius(
    kept: Float[np.ndarray, "length"], lengths: Int[np.ndarray, "length"], *, share: float
) -> float:
    """The fewest last tokens that carry the share of the activation, with which all longer ones agree.

    Args:
        kept: activation with only so many last tokens left, over that with all.
        lengths: how many, rising.
        share: of the whole activation.

    Returns:
        A number of tokens; infinite where the longest length does not reach the share; NaN where
        nothing is known.
    """
    known: Bool[np.ndarray, "length"] = ~np.isnan(kept)
    if not known.any():
        return float("nan")
    kept, lengths = kept[known], lengths[known]
    short = np.flatnonzero(kept < share)
    after = short[-1] + 1 if short.size else 0
    return float(lengths[after]) if after < len(lengths) else float("inf")


def frequency_percentile(
    scores: Float[np.ndarray, "token"], token: int, order: Int[np.ndarray, "token"], *, neighbours: int
) -> float:
    """How a token's score ranks among tokens that are about as frequent.

    Args:
        scores: of every token.
        token: the one asked about.
        order: all tokens by how often they occur, see `by_frequency`.
        neighbours: how many tokens nearest in that order it is ranked among, half on either side.

    Returns:
        Share of them with a lower score, ties counted half: 0.5 by chance, 1 for the highest.
    """
    place = int(np.flatnonzero(order == token)[0])
    width = min(neighbours + 1, len(order))
    start = min(max(0, place - neighbours // 2), len(order) - width)
    near = np.delete(order[start : start + width], place - start)
    lower, equal = scores[near] < scores[token], scores[near] == scores[token]
    return float(lower.mean() + equal.mean() / 2)


def by_frequency(counts: Int[np.ndarray, "token"]) -> Int[np.ndarray, "token"]:
    """All tokens, the rarest first; equally frequent ones in the order of their ids."""
    return np.argsort(counts, kind="stable")


def effective_share(sizes: Float[np.ndarray, "*batch part"]) -> Float[np.ndarray, "*batch"]:
    """Over how many parts a sum is spread, as a share of all: (Σ size)² / (n Σ size²).

    1 where all are alike, 1 / n where one is all there is; NaN where there is nothing.
    """
    above, below = sizes.sum(-1) ** 2, sizes.shape[-1] * (sizes**2).sum(-1)
    return share(above, below)
