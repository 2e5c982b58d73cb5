"""What attention patterns are asked: where weight falls, how far, how spread, and how alike over texts.

A pattern holds each query's shares on its keys, α_ij. Every statistic is taken under several definitions
of what is irrelevant, and each definition is a weight n_j ≥ 0 on keys: 1 for all of them; 0 for the first
token; 0 for sink tokens; or the length of what a head would write if it took that key alone. With
w_ij = α_ij n_j, a statistic that asks a question k_ij of pairs is Σ w_ij k_ij / Σ w_ij over all queries:
keys with weight 0 leave the sum below as well as the one above.

Source: Vig & Belinkov 2019, "Analyzing the structure of attention in a Transformer language model", for
the sums and the remaining mass below; Kobayashi et al. 2020, "Attention is not only a weight", for lengths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from layerscope.maths.arrays import Array, divide

DEFINITIONS = ("all keys", "without first token", "without sinks", "by value norm")
"""What counts as attention: every key's share; all but the first position's; all but those of sink tokens;
shares times the length of what the head writes if it takes that key alone."""

DISTANCE_BINS: tuple[tuple[int, int | None], ...] = (
    (0, 0), (1, 1), (2, 5), (6, 10), (11, 50), (51, 200), (201, None),
)  # fmt: skip
"""First and last distance of each bin, in tokens; the last bin has no end."""

OFFSETS = 16
"""Distances 0 to 15 are kept one by one."""


def bin_name(first: int, last: int | None) -> str:
    """How a bin is written: "0", "2–5", "> 200"."""
    if last is None:
        return f"> {first - 1}"
    return str(first) if first == last else f"{first}–{last}"


def band_name(first: int) -> str:
    """The sum over distances from this one to the end of its bin."""
    return f"distance from {first}"


def entropy(kept: Float[Array, "*query"], weighted_log: Float[Array, "*query"]) -> Float[Array, "*query"]:
    """Entropy of attention that is renormalised over what is kept: −Σ p log p, with p = w / Σ w.

    log Σ w − Σ w log w / Σ w needs one pass over the pattern and no second one to renormalise.

    Args:
        kept: Σ_j w_ij.
        weighted_log: Σ_j w_ij log w_ij, a term being 0 where w is.

    Returns:
        Nats, ≥ 0 but for rounding; NaN where nothing is kept.

    Source: Vig & Belinkov 2019, entropy.
    """
    return logarithm(kept) - divide(weighted_log, kept)


def logarithm(values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Natural logarithm; NaN at zero, which has none, rather than minus infinity."""
    values = values + divide(values * 0, values)
    return values.log() if hasattr(values, "detach") else np.log(values)


def uniform_pattern(visible: Bool[Array, "*head query key"]) -> Float[Array, "*head query key"]:
    """Attention that falls on every visible key alike: what no preference at all would look like.

    Args:
        visible: which keys each query may see; at least one each.

    Source: definition.
    """
    seen = visible * 1.0
    return divide(seen, seen.sum(-1)[..., None])


def variability(deviation: Float[Array, "*head"], kept: Float[Array, "*head"]) -> Float[Array, "*head"]:
    """How far patterns depend on the words read: Σ |α_ij − ᾱ_ij| / (2 Σ α_ij), over texts and pairs.

    ᾱ_ij is the mean over texts. 0: the pattern is the same whatever the words, so position decides it;
    towards 1: no two texts share any of it.

    Args:
        deviation: Σ |w_ij − w̄_ij|.
        kept: Σ w_ij.

    Source: Vig & Belinkov 2019, attention variability.
    """
    return divide(deviation, 2 * kept)


def crossings(shares: Float[Array, "layer"], level: float) -> tuple[float, float]:
    """Where a block of layers below a level ends, and where layers fall below it again for good.

    Layers stand at 0, 1, 2, ..., and the share is interpolated between neighbours.

    Returns:
        end: where the share first rises to the level; 0 where the first layer has reached it already,
            NaN where no layer does: then the block has no end.
        return_: where the share falls below the level for the last time; NaN where the last layer has not
            fallen below it, or none ever reached it.

    Source: ours, for the claim of Kinniment 2022 that first-token attention begins after some layers
    and is left again in the last ones.
    """
    values = np.asarray(shares, dtype=np.float64)
    above = np.flatnonzero(values >= level)
    if np.isnan(values).any() or not above.size:
        return np.nan, np.nan
    first, last = int(above[0]), int(above[-1])
    end = 0.0 if first == 0 else first - _part(values[first], values[first - 1], level)
    back = np.nan if last == len(values) - 1 else last + _part(values[last], values[last + 1], level)
    return end, back


def _part(above: float, below: float, level: float) -> float:
    """How far from the layer above the level towards its neighbour below it the level lies."""
    return float((above - level) / (above - below))


def pairs_with_same_token(ids: Sequence[int]) -> list[tuple[int, int]]:
    """(query, key) for every earlier place of the query's own token: what a duplicate-token head looks at.

    Source: Wang et al. 2022, "Interpretability in the wild", duplicate-token heads.
    """
    return [(query, key) for query, keys in enumerate(_earlier_places(ids)) for key in keys]


def pairs_after_same_token(ids: Sequence[int]) -> list[tuple[int, int]]:
    """(query, key) for every key that follows an earlier place of the query's token: the induction target.

    Keys are earlier than the query: one that is the query itself would say that it looks at itself.

    Source: Olsson et al. 2022, "In-context learning and induction heads".
    """
    return [
        (query, key + 1) for query, keys in enumerate(_earlier_places(ids)) for key in keys if key + 1 < query
    ]


def _earlier_places(ids: Sequence[int]) -> list[list[int]]:
    seen: dict[int, list[int]] = {}
    places = []
    for position, token in enumerate(ids):
        before = seen.setdefault(token, [])
        places.append(list(before))
        before.append(position)
    return places
