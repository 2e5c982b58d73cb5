"""What runs say next: read from their logits, or from their last states in blocks of the vocabulary.

The logits of a large vocabulary do not fit a processor's cache, and going over them again and again costs as much as
making them. So a block of tokens is multiplied out for some rows, everything that is asked of these logits is taken
from them while they are at hand, and the next block takes their place: no more than a block is ever held. What is
left beside the product itself is one pass for the log-sum-exp.

A cross-entropy Σ p z needs no logits at all where they are linear in the normed state h: it is (Σ p W) · h, and the
sum is taken once for each p. Where a soft cap stands between, or weights are coarser than float32, it is summed over
the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from layerscope.maths.distributions import Normaliser, divergence_of_sums
from layerscope.models.layered import LayeredModel
from layerscope.models.structure import map_logits
from layerscope.models.wide_linear import apply_in_blocks, is_plain_linear
from layerscope.runs._seen import Reference as Reference
from layerscope.runs._seen import Seen

_ROWS, _COLUMNS = 1024, 1024
"""Of a block on a processor: products of these shapes run at its full speed, and their logits (4 MB) stay in the
cache. Twice or half as many of either change little."""
_ROWS_ON_GPU, _COLUMNS_ON_GPU = 4096, 2**15
_LOGITS_AT_ONCE = 2**25
"""Bound on logits that are held where whole ones are asked for."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What was asked of predictions; rows are all reads of all runs, run by run.

    Attributes:
        normaliser: what turns logits into log-probabilities [row].
        logits: of the tokens asked for [row token]; NaN for an id below 0, which stands for no token.
        top: the most probable token, the first of several [row]; empty unless asked for.
        divergence: from the reference asked for, in nats [row]; empty without one.
        rank: of the first of the tokens asked for, 1 for the most probable; ties count against it, but of
            several that share the first place the first has it [row]; empty unless asked for.
    """

    normaliser: Normaliser
    logits: Float[Tensor, "row token"]
    top: Int[Tensor, "row_or_none"]
    divergence: Float[Tensor, "compared_row"]
    rank: Int[Tensor, "ranked_row"]

    @property
    def log_probability(self) -> Float[Tensor, "row token"]:
        """Of the tokens asked for, in nats."""
        return self.normaliser.log_probability(self.logits)


Block = tuple[slice, int, Tensor]
"""Rows, the first token, and the logits of these rows and the tokens from there on [row token]."""


class Predictions:
    """Next-token predictions at some positions of some runs [run read].

    Attributes:
        shape: number of runs, and of positions read of each.
    """

    def __init__(
        self, model: LayeredModel, *, states: Tensor | None = None, logits: Tensor | None = None
    ) -> None:
        """Of states after the last block [run read width], or of logits [run read vocabulary]: one of the two.

        Raises:
            LayerscopeError: states are given, and the load check could not make this model's logits from them.
        """
        given = states if logits is None else logits
        assert given is not None
        if logits is None:
            model.need("unembed")
        self.model, self.shape = model, (given.shape[0], given.shape[1])
        self._logits = None if logits is None else logits.flatten(0, 1)
        self._states = None if logits is not None or states is None else states.flatten(0, 1)

    def read(
        self,
        *,
        tokens: Int[Tensor, "row token"] | None = None,
        top: bool = False,
        rank: bool = False,
        against: Reference | None = None,
        rows_of: Int[Tensor, "row"] | None = None,
    ) -> Reading:
        """What is asked for, of every read of every run, in one pass over the vocabulary.

        Args:
            tokens: ids whose logits are wanted of each row; below 0 for none.
            top: whether the most probable token is wanted.
            rank: whether the rank of the first of `tokens` is wanted, of every row.
            against: distributions to compare with.
            rows_of: which of them belongs to each row.
        """
        # Gradients go through logits at hand (attribution), never through states.
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._states is None):
            return self._read(tokens, top, rank, against, rows_of)

    def _read(
        self, tokens: Tensor | None, top: bool, rank: bool, against: Reference | None, rows_of: Tensor | None
    ) -> Reading:
        rows, device = self.shape[0] * self.shape[1], self._device
        wanted = torch.empty((rows, 0), dtype=torch.long) if tokens is None else tokens
        wanted, asked = wanted.to(device), wanted.shape[1]
        own = self._chosen(wanted[:, 0])[:, None] if rank else None
        linear = against is not None and self._states is not None and against.tokens is not None
        if against is not None and rows_of is not None:
            rows_of = rows_of.to(device)
            if linear and against.tokens is not None:
                wanted = torch.cat([wanted, against.tokens[rows_of]], dim=1)
        seen = Seen(
            wanted,
            top=top,
            against=None if linear else against,
            rows_of=rows_of,
            own=own,
            overwrite=self._states is not None,
        )
        for block in self._blocks():
            seen.take(*block)
        found, logits = seen.normaliser(), seen.logits()
        divergence = found.highest[:0]
        if against is not None and rows_of is not None:
            crossed = self._crossed(against, rows_of, logits[:, asked:]) if linear else seen.crossed()
            divergence = divergence_of_sums(against.own.negative_entropy[rows_of], crossed, found.total)
        ranks = self._ranks(seen, wanted[:, 0]) if rank else seen.tops()[:0]
        return Reading(found, logits[:, :asked], seen.tops(), divergence, ranks)

    def _ranks(self, seen: Seen, tokens: Tensor) -> Tensor:
        ranks, shared = seen.ranks()
        rows = shared.nonzero()[:, 0]
        if len(rows):
            first = self.only(rows).read(top=True).top
            ranks[rows] = torch.where(first == tokens[rows], 1, 2)
        return ranks

    def only(self, rows: Int[Tensor, "row"]) -> Predictions:
        """Some of the reads, as as many runs of one read each."""
        rows = rows.to(self._device)
        if self._states is None:
            assert self._logits is not None
            return Predictions(self.model, logits=self._logits[rows][:, None])
        return Predictions(self.model, states=self._states[rows][:, None])

    def logits(self) -> Float[Tensor, "run read vocabulary"]:
        """All logits, where a few rows are read of which everything is wanted."""
        whole = self._logits if self._states is None else self.model.unembed(self._states)
        assert whole is not None
        return whole.reshape(*self.shape, -1)

    def of_logits(self, number: Callable[[Tensor], Tensor]) -> Tensor:
        """What a function makes of logits [run read vocabulary], given those of some runs at a time."""
        if self._states is None:
            return number(self.logits())
        runs, reads = self.shape
        at_once = max(1, _LOGITS_AT_ONCE // (self.model.facts.vocabulary * reads))
        states = self._states.reshape(runs, reads, -1)
        return torch.cat(
            [number(self.model.unembed(states[start : start + at_once])) for start in range(0, runs, at_once)]
        )

    @property
    def _device(self) -> torch.device:
        given = self._logits if self._states is None else self._states
        assert given is not None
        return given.device

    def _crossed(self, against: Reference, rows_of: Tensor, logits: Tensor) -> Tensor:
        """Σ p z of each row, from the logits of its reference's most probable tokens and its state."""
        others = (self._normed * against.rest[rows_of]).sum(-1) + against.offset[rows_of]
        scaled = map_logits(others, self.model.structure.logit_map)
        return (against.weights[rows_of] * logits).sum(-1) + scaled

    @cached_property
    def _normed(self) -> Tensor:
        """States as the unembedding meets them [row width]."""
        states = self._states
        assert states is not None
        for module in self.model.structure.after[:-1]:
            states = apply_in_blocks(module, states)
        return states

    def _chosen(self, tokens: Tensor) -> Tensor:
        """The logit of one token of each row, by a product of its own: what the others are compared with."""
        head = self.model.structure.after[-1]
        if self._states is None or not is_plain_linear(head):
            logits = self.logits().flatten(0, 1).float()
            return logits.gather(1, tokens[:, None])[:, 0]
        assert isinstance(head, nn.Linear)
        found = []
        for start in range(0, len(tokens), _ROWS):
            rows = slice(start, start + _ROWS)
            ids, places = torch.unique(tokens[rows], return_inverse=True)
            bias = None if head.bias is None else head.bias[ids]
            logits = nn.functional.linear(self._normed[rows], head.weight[ids], bias)
            found.append(logits.gather(1, places[:, None])[:, 0])
        return map_logits(torch.cat(found), self.model.structure.logit_map).float()

    def _blocks(self) -> Iterator[Block]:
        if self._states is None:
            assert self._logits is not None
            yield slice(None), 0, self._logits.float()
            return
        head = self.model.structure.after[-1]
        on_cpu = self._states.device.type == "cpu"
        at_once = _ROWS if on_cpu else _ROWS_ON_GPU
        if not is_plain_linear(head):
            at_once = max(1, _LOGITS_AT_ONCE // self.model.facts.vocabulary)
        for start in range(0, len(self._states), at_once):
            rows = slice(start, start + at_once)
            if is_plain_linear(head):
                assert isinstance(head, nn.Linear)
                for first, logits in self._columns(head, rows, _COLUMNS if on_cpu else _COLUMNS_ON_GPU):
                    yield rows, first, logits
            else:
                yield rows, 0, self.model.unembed(self._states[rows]).float()

    def _columns(self, head: nn.Linear, rows: slice, columns: int) -> Iterator[tuple[int, Tensor]]:
        states, bias = self._normed[rows], head.bias
        for first in range(0, len(head.weight), columns):
            part = slice(first, first + columns)
            logits = nn.functional.linear(states, head.weight[part], None if bias is None else bias[part])
            yield first, map_logits(logits, self.model.structure.logit_map).float()


Read = Callable[[Predictions, Sequence[int]], Tensor]
"""Turns predictions [run read] of the runs with these indices into what is kept of them [run ...]."""
