"""The plain path: branches as whole forward passes with hooks, batched by equal length.

It serves every decoder and is the reference that the fast path is tested against. Rows of a batch
are runs of one text under different edits; nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from layerscope.models.attention import AttentionCall, Replacement, replaced
from layerscope.models.hooks import at_depth, on_output
from layerscope.models.layered import LayeredModel
from layerscope.models.sites import Site
from layerscope.runs._edited_attention import HeadEdits, attend_from
from layerscope.runs._packing import mark_cut, places_of_edits, values_of_edits
from layerscope.runs.edits import ADDITIONS, IN_ATTENTION, Branch, Cut, cuts
from layerscope.runs.predictions import Predictions, Read
from layerscope.runs.reading import added_by
from layerscope.runs.recordings import Recording


@torch.no_grad()
def run_plainly(
    model: LayeredModel,
    branches: Sequence[Branch],
    *,
    base: Recording,
    other: Recording | None,
    read: Read,
    read_last: int = 1,
    tokens_per_pass: int = 2048,
    mean_values: Sequence[Tensor] | None = None,
) -> Tensor:
    """What is read from every branch, each run whole.

    Arguments and result are those of `run_branches`; recordings need no keys, values or calls.
    """
    rows = max(1, tokens_per_pass // base.run.tokens)
    pieces = []
    for start in range(0, len(branches), rows):
        chunk = _Chunk(model, branches[start : start + rows], base, other, mean_values)
        said = Predictions(model, logits=chunk.logits(read_last))
        pieces.append(read(said, range(start, start + len(chunk.branches))))
    return torch.cat(pieces)


class _Chunk:
    """Branches that run in one batch."""

    def __init__(
        self,
        model: LayeredModel,
        branches: Sequence[Branch],
        base: Recording,
        other: Recording | None,
        mean_values: Sequence[Tensor] | None,
    ) -> None:
        self.model, self.branches, self.base, self.other = model, branches, base, other
        self.mean_values = mean_values
        self._edits = places_of_edits(branches, base, other)
        self._cuts = list(cuts(branches))

    def logits(self, read_last: int) -> Tensor:
        """Logits at the last positions of every run [run position vocabulary]."""
        model, run, rows = self.model, self.base.run, [branch.row for branch in self.branches]
        changes = {depth: self._state(depth) for site, depth in self._edits if site == "state"}
        put_in = changes.get(0)

        def start(stream: Tensor) -> Tensor:
            stream = run.start(stream, rows)
            return stream if put_in is None else put_in(stream)

        changes[0] = start
        with ExitStack() as stack:
            stack.enter_context(at_depth(model, changes))
            for site, layer in self._edits:
                if site in ADDITIONS:
                    module, multiplier = added_by(model, Site(site, layer))
                    stack.enter_context(on_output(module, self._added(site, layer, multiplier)))
            attention = self._attention_edits()
            if attention:
                stack.enter_context(replaced(model.module, attention))
            return model.logits(run.batch(rows), last=read_last == 1)[:, -read_last:]

    def _values(self, site: str, layer: int) -> tuple[np.ndarray, Tensor]:
        edits = self._edits[site, layer]
        return edits, values_of_edits(site, layer, edits, self.base, self.other)

    def _state(self, depth: int) -> Callable[[Tensor], Tensor]:
        def change(stream: Tensor) -> Tensor:
            edits, values = self._values("state", depth)
            stream = stream.clone()
            stream[edits[:, 0], edits[:, 1]] = values.to(stream)
            return stream

        return change

    def _added(self, site: str, layer: int, multiplier: float) -> Callable[[Tensor], Tensor]:
        def change(output: Tensor) -> Tensor:
            edits, values = self._values(site, layer)
            rows = output.reshape(len(self.branches), self.base.run.tokens, -1).clone()
            rows[edits[:, 0], edits[:, 1]] = (values / multiplier).to(rows)
            return rows.reshape(output.shape)

        return change

    def _attention_edits(self) -> dict[nn.Module, Replacement]:
        layers = {layer for site, layer in self._edits if site in IN_ATTENTION}
        layers |= {layer for _, cut in self._cuts for layer in cut.layers}
        found: dict[nn.Module, Replacement] = {}
        for layer in sorted(layers):
            module = self.model.attention_modules[layer]
            if module is not None:
                found[module] = self._edited(layer)
        return found

    def _edited(self, layer: int) -> Replacement:
        def compute(call: AttentionCall) -> Tensor:
            edits = HeadEdits(mean_values=None if self.mean_values is None else self.mean_values[layer])
            for site in IN_ATTENTION:
                if (site, layer) in self._edits:
                    places, values = self._values(site, layer)
                    run, head, token = (torch.from_numpy(places[:, column]) for column in (0, 4, 1))
                    edits.puts[site] = (run, head, token, values)
            for run_index, cut in self._cuts:
                if layer in cut.layers:
                    _mark(edits, call, run_index, cut)
            mask = None if call.mask is None else call.mask[..., : call.k.shape[2]]
            return attend_from(call, call.q, call.k, call.v, prefix=None, mask=mask, edits=edits)

        return compute


def _mark(edits: HeadEdits, call: AttentionCall, run: int, cut: Cut) -> None:
    batch, heads, tokens, _ = call.q.shape
    if cut.lost not in edits.cuts:
        edits.cuts[cut.lost] = torch.zeros(
            batch, heads, tokens, tokens, dtype=torch.bool, device=call.q.device
        )
    of_heads = range(heads) if cut.heads is None else cut.heads
    mark_cut(edits.cuts[cut.lost], run, of_heads, cut.queries, cut.keys)
