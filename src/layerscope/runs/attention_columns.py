"""Sums over queries and keys of attention that is seen one block of queries at a time.

What is linear in the pattern is summed over queries first, for each key; the definitions of irrelevant
attention are weights on keys, and come in at the end, for all layers at once: their heads stand side by
side on one axis. Only entropy needs weights for each query.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from layerscope.maths.attention import DISTANCE_BINS, band_name, entropy

QUERIES_AT_ONCE = 128

Sums = dict[str, Tensor]
"""By name: [definition text head]; "tags" has an axis more, the tag."""


@dataclass(frozen=True)
class Band:
    """A total split by distance.

    Attributes:
        name: of the sum.
        total: the total whose queries count.
        first, last: distances in tokens; None is no end.
    """

    name: str
    total: str
    first: int
    last: int | None


@dataclass(frozen=True, eq=False)
class Asked:
    """What is summed of every head's attention, for texts of one length.

    Attributes:
        ids: [text token].
        totals: names of sums Σ_i u_i Σ_j w_ij; one of them is "every".
        queries: the u_i of each, [text total token].
        bands: totals split by distance.
        kinds: names of sums over chosen pairs.
        pairs: text, query, key and kind of each chosen pair [4 pair], in order of their queries.
        tags: whether each key has a tag [text tag token], or None: "every" is split by them.
        least_kept: a query that keeps less of its attention than this has no entropy.
    """

    ids: Tensor
    totals: tuple[str, ...]
    queries: Tensor
    bands: tuple[Band, ...] = ()
    kinds: tuple[str, ...] = ()
    pairs: Tensor | None = None
    tags: Tensor | None = None
    least_kept: float = 0.1

    def first_tokens(self, tokens: int, *, times: int) -> Asked:
        """The same of the first tokens only, with all texts there several times, one time after another."""
        pairs = None
        if self.pairs is not None:
            first = self.pairs[:, self.pairs[1] < tokens]
            on = torch.tensor([[self.ids.shape[0]], [0], [0], [0]], device=first.device)
            pairs = torch.cat([first + time * on for time in range(times)], dim=1)
            pairs = pairs[:, pairs[1].argsort(stable=True)]
        tags = None if self.tags is None else self.tags[..., :tokens].repeat(times, 1, 1)
        return Asked(
            ids=self.ids[:, :tokens].repeat(times, 1),
            totals=self.totals,
            queries=self.queries[..., :tokens].repeat(times, 1, 1),
            bands=tuple(
                Band(band_name(first), "every", first, last)
                for first, last in DISTANCE_BINS
                if first < tokens
            ),
            kinds=self.kinds,
            pairs=pairs,
            tags=tags,
            least_kept=self.least_kept,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all sums that are linear in the pattern, in the order of their columns."""
        return (*self.totals, *(band.name for band in self.bands), *self.kinds)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Consecutive queries, and what is asked of them."""
        tokens = self.ids.shape[1]
        return tuple(
            self._block(start, min(start + QUERIES_AT_ONCE, tokens))
            for start in range(0, tokens, QUERIES_AT_ONCE)
        )

    def _block(self, start: int, stop: int) -> Block:
        pairs = None
        if self.pairs is not None:
            inside = (self.pairs[1] >= start) & (self.pairs[1] < stop)
            pairs = self.pairs[:, inside] if bool(inside.any()) else None
        return Block(
            start=start,
            stop=stop,
            queries=self.queries[:, None, :, start:stop].contiguous(),
            bands=tuple(self._banded(start, stop)),
            pairs=pairs,
            places=None if pairs is None else self._places(pairs),
        )

    def _places(self, pairs: Tensor) -> Tensor:
        """Row of each pair in a table of texts x kinds x tokens."""
        text, _, key, kind = pairs
        return (text * len(self.kinds) + kind) * self.ids.shape[1] + key

    def _banded(self, start: int, stop: int) -> Iterator[tuple[int, slice, slice, Tensor]]:
        for place, band in enumerate(self.bands, start=len(self.totals)):
            weights = self.queries[:, None, self.totals.index(band.total), start:stop]
            asking = (weights != 0).any(dim=0)[0].nonzero()[:, 0] + start
            asking = asking[asking >= band.first]  # earlier queries have no key so far back
            if not asking.numel():
                continue
            first, last = int(asking[0]), int(asking[-1])
            farthest = last if band.last is None else band.last
            across, down = (
                slice(first - start, last + 1 - start),
                slice(max(0, first - farthest), last + 1 - band.first),
            )
            rows = torch.arange(first, last + 1, device=weights.device)[:, None]
            distance = rows - torch.arange(down.start, down.stop, device=weights.device)
            inside = (distance >= band.first) & (distance <= farthest)
            yield place, across, down, weights[..., across, None] * inside


@dataclass(frozen=True, eq=False)
class Block:
    """Queries start .. stop - 1, seen against keys 0 .. stop - 1.

    Attributes:
        start, stop: positions.
        queries: their weights in each total [text 1 total query].
        bands: place of each band among the sums, the queries (of this block) and the keys between which
            it has any pair, and the weights there [text 1 query key].
        pairs: the chosen pairs of these queries [4 pair], or None.
        places: where each of them is summed.
    """

    start: int
    stop: int
    queries: Tensor
    bands: tuple[tuple[int, slice, slice, Tensor], ...]
    pairs: Tensor | None
    places: Tensor | None


class Columns:
    """Everything that is linear in the pattern, before keys are weighted.

    Attributes:
        totals: totals and bands [text head total token].
        chosen: chosen pairs [texts * kinds * tokens, head].
    """

    def __init__(self, asked: Asked, heads: int) -> None:
        texts, tokens = asked.ids.shape
        self.asked = asked
        self.totals = asked.queries.new_zeros(texts, heads, len(asked.totals) + len(asked.bands), tokens)
        self.chosen = asked.queries.new_zeros(texts * len(asked.kinds) * tokens, heads)

    def add(self, block: Block, pattern: Tensor) -> None:
        """One block of shares [text head query key]."""
        n = len(self.asked.totals)
        self.totals[:, :, :n, : block.stop] += block.queries @ pattern
        for place, queries, keys, weights in block.bands:
            self.totals[:, :, place, keys] += (pattern[:, :, queries, keys] * weights).sum(-2)
        if block.pairs is not None and block.places is not None:
            text, query, key, _ = block.pairs
            self.chosen.index_add_(0, block.places, pattern[text, :, query - block.start, key])

    def whole(self) -> Tensor:
        """All of them [text head sum token]."""
        texts, _, _, tokens = self.totals.shape
        by_kind = self.chosen.reshape(texts, len(self.asked.kinds), tokens, -1).permute(0, 3, 1, 2)
        return torch.cat([self.totals, by_kind], dim=2)


@dataclass(frozen=True, eq=False)
class Weighted:
    """One layer's sums, and what entropy needs of each query.

    Attributes:
        linear: each of `Asked.names` [text head definition sum].
        key_positions: the totals with each key counted by its position [text head definition total].
        first: share on the first token by the queries of "every" [text head definition].
        tags: "every", split by tags [text head definition tag]; empty where there are none.
        kept: Σ_j w_ij [text head definition token].
        weighted_log: Σ_j w_ij log w_ij, likewise.
    """

    linear: Tensor
    key_positions: Tensor
    first: Tensor
    tags: Tensor
    kept: Tensor
    weighted_log: Tensor


class Seen:
    """What is kept of one layer's attention while its blocks go by."""

    def __init__(self, asked: Asked, weights: Tensor) -> None:
        """
        Args:
            asked: what is summed.
            weights: n_j under each definition [text head definition token].
        """
        self.asked, self.weights = asked, weights
        self.columns = Columns(asked, weights.shape[1])
        self.kept, self.weighted_log = torch.empty_like(weights), torch.empty_like(weights)
        # n log n of the last definition; weights of the others are 0 or 1, where it is 0.
        logs = torch.xlogy(weights[:, :, -1:], weights[:, :, -1:])
        self._with_logs = torch.cat([weights, logs], dim=2)

    def add(self, block: Block, pattern: Tensor, products: Tensor, log_sum: Tensor) -> None:
        """One block of shares α = exp(s − log_sum), for any s and log_sum that give them.

        Σ w α log α is Σ w α s less log_sum Σ w α: no pass over all pairs is spent on taking log_sum away. What
        rounding adds is of the size that it has in s itself.

        Args:
            block: the queries.
            pattern: α [text head query key].
            products: α s, likewise.
            log_sum: [text head query 1].
        """
        here, keys = slice(block.start, block.stop), slice(0, block.stop)
        by_key = self._with_logs[..., keys] @ pattern.transpose(-1, -2)
        self.kept[..., here] = by_key[:, :, :-1]
        logs = self.weights[..., keys] @ products.transpose(-1, -2)
        self.weighted_log[..., here] = logs - by_key[:, :, :-1] * log_sum.transpose(-1, -2)
        self.weighted_log[:, :, -1, here] += by_key[:, :, -1]
        self.columns.add(block, pattern)

    def weighted(self) -> Weighted:
        """The sums with keys weighted."""
        return weighted(self.asked, self.columns.whole(), self.weights, self.kept, self.weighted_log)


def weighted(asked: Asked, columns: Tensor, weights: Tensor, kept: Tensor, weighted_log: Tensor) -> Weighted:
    """Weight the keys of columns [text head sum token], or of columns that all heads share [text 1 ...]."""
    position = torch.arange(weights.shape[-1]).to(weights)
    totals = columns[:, :, : len(asked.totals)] * position
    every = weights * columns[:, :, asked.totals.index("every"), None]
    nothing = weights.new_zeros(*weights.shape[:3], 0)
    return Weighted(
        linear=weights @ columns.transpose(-1, -2),
        key_positions=weights @ totals.transpose(-1, -2),
        first=every[..., 0],
        tags=nothing if asked.tags is None else every @ asked.tags[:, None].transpose(-1, -2),
        kept=kept,
        weighted_log=weighted_log,
    )


def sums_of(asked: Asked, layers: Sequence[Weighted]) -> Sums:
    """All sums by name, the heads of all layers side by side."""

    def side_by_side(name: str) -> Tensor:
        return torch.cat([getattr(layer, name) for layer in layers], dim=1).movedim(2, 0)

    linear, positions = side_by_side("linear"), side_by_side("key_positions")
    sums = {name: linear[..., place] for place, name in enumerate(asked.names)}
    sums |= {f"key position, {name}": positions[..., place] for place, name in enumerate(asked.totals)}
    sums["first token"] = side_by_side("first")
    queries = asked.queries[:, asked.totals.index("every")].sum(-1)
    sums["queries"] = queries[None, :, None].expand_as(sums["first token"])
    if asked.tags is not None:
        sums["tags"] = side_by_side("tags")
    return sums | _from_queries(asked, side_by_side("kept"), side_by_side("weighted_log"))


def _from_queries(asked: Asked, kept: Tensor, weighted_log: Tensor) -> Sums:
    """Entropies and their exponentials, over the queries after the first that keep enough."""
    counted = kept >= asked.least_kept
    counted[-1] = kept[-1] > 0  # lengths are no shares: none is too small
    counted[..., 0] = False  # the first query has one key only
    entropies = torch.where(counted, entropy(kept, weighted_log).clamp_min(0), 0.0)
    spans = torch.where(counted, entropies.exp(), 0.0)
    found = {"entropy": entropies, "span": spans, "entropy queries": counted.to(kept)}
    return {name: values.sum(-1) for name, values in found.items()}
