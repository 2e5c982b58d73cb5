"""Branches: runs that leave a base run, computed only where they can differ from it.

A run that is changed at one token differs from the run that it leaves only at and after this token, and
only in the blocks from there on. So the base run is made once, with its states, keys and values kept;
then all branches go through the blocks together, each joining at its first changed block, carrying only
the positions from its first changed one on. Their tokens are packed into one long row, so that every
projection and every MLP is one large matrix product by the model's own modules; in the attention
function they read the base run's keys and values for the positions before their own, under rows of
the model's own mask. In the last block only the positions that are read out go beyond the keys and values.

Against whole forward passes this is exact: the load check compares a branch with one on every model, and
where they differ (blocks that mix tokens outside the attention function) the plain path is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerscope.models.arguments import along, at_positions
from layerscope.models.attention import AttentionCall, Replacement, replaced
from layerscope.models.fused import fused_activations
from layerscope.models.hooks import first_of, on_output
from layerscope.models.layered import LayeredModel
from layerscope.models.sites import Site
from layerscope.runs._edited_attention import Prefix, attend_from
from layerscope.runs._packing import Group, Packing, chunks
from layerscope.runs.edits import ADDITIONS, Branch
from layerscope.runs.predictions import Predictions, Read
from layerscope.runs.reading import added_by
from layerscope.runs.recordings import Recording


class _KeysAreThere(Exception):  # noqa: N818 - not an error
    """Ends a block's call once its keys and values have been seen."""


@torch.no_grad()
def run_branches(
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
    """What is read from every branch.

    Args:
        model: the model; its load check must allow branches.
        branches: the runs wanted, checked before.
        base: the recorded run that they leave, with k, v and calls.
        other: the recorded run that activations come from, with the sites that are put in.
        read: reduces predictions at the read positions.
        read_last: how many of the last positions are read.
        tokens_per_pass: bound on the tokens packed into one row; with the branches it alone decides how
            they are grouped.
        mean_values: for cuts with lost="mean": of each block, a mean value for every query head.

    Returns:
        One row for each branch, in their order.
    """
    first_read = base.run.tokens - read_last
    starts = [min(branch.starts(base.run.tokens), first_read) for branch in branches]
    indices: list[int] = []
    final: list[Tensor] = []
    for chunk in chunks(branches, model.n_layers, starts, base.run.tokens, tokens_per_pass):
        walk = _Walk(model, [branches[i] for i in chunk], [starts[i] for i in chunk], base, other, read_last)
        walk.mean_values = mean_values
        for group, states in walk.final_states():
            indices.extend(chunk[member] for member in group.members)
            final.append(states)
    # All at once: the unembedding is then read from memory once for many runs.
    values = read(Predictions(model, states=torch.cat(final)), indices)
    return values[torch.tensor(indices).argsort()]


class _Walk:
    """One chunk of branches on its way through the blocks."""

    mean_values: Sequence[Tensor] | None = None

    def __init__(
        self,
        model: LayeredModel,
        branches: Sequence[Branch],
        starts: Sequence[int],
        base: Recording,
        other: Recording | None,
        read_last: int,
    ) -> None:
        self.model, self.base, self.read_last = model, base, read_last
        self.packing = Packing(branches, starts, base, other)
        self.layer = 0
        self._keys: dict[int, tuple[Tensor, Tensor]] = {}
        self._spans: dict[int, tuple[int, int]] = {}
        self._keep = 0
        self._needed: tuple[Tensor, np.ndarray, np.ndarray] | None = None

    def final_states(self) -> list[tuple[Group, Tensor]]:
        """Groups of branches, with their states after the last block at the positions that are read."""
        model, packing = self.model, self.packing
        modules = {
            module: self._attention(layer)
            for layer, module in enumerate(model.attention_modules)
            if module is not None
        }
        with replaced(model.module, modules), fused_activations(model.module), ExitStack() as stack:
            self._watch_additions(stack)
            self._spare_projections(stack)
            for layer in range(model.n_layers):
                packing.join(layer)
                self.layer = layer
                if packing.under_way():
                    self._step(last=layer == model.n_layers - 1)
            packing.join(model.n_layers)
        return [(group, group.states[:, -self.read_last :]) for group in packing.groups]

    def _step(self, *, last: bool) -> None:
        """Take all branches under way through one block."""
        groups = self.packing.under_way()
        self._keys = {}
        if last:
            self._see_keys(groups)
        keep = self.read_last if last else self.base.run.tokens
        parts = [group.states[:, -keep:] for _, group in groups]
        out = self._through_block(groups, parts, keep)
        for (_, group), part in zip(groups, out, strict=True):
            if part.shape[1] < group.states.shape[1]:
                group.states = torch.cat([group.states[:, : -part.shape[1]], part], dim=1)
            else:
                group.states = part

    def _see_keys(self, groups: Sequence[tuple[int, Group]]) -> None:
        """Keys and values of the last block at positions that are not read: the block's call ends there."""
        with_more = [(n, g) for n, g in groups if g.states.shape[1] > self.read_last]
        if not with_more or self.model.attention_modules[self.layer] is None:
            return
        try:
            self._through_block(with_more, [g.states[:, : -self.read_last] for _, g in with_more], 0)
        except _KeysAreThere:
            return
        raise AssertionError("the last block ended without calling its attention")

    def _through_block(
        self, groups: Sequence[tuple[int, Group]], parts: Sequence[Tensor], keep: int
    ) -> list[Tensor]:
        tokens = self.base.run.tokens
        self._spans, self._keep, offset, positions, rows = {}, keep, 0, [], []
        for (number, group), part in zip(groups, parts, strict=True):
            runs, length, _ = part.shape
            self._spans[number] = (offset, length)
            first = tokens - length if keep else group.start
            positions.append(torch.arange(first, first + length).repeat(runs))
            rows.append(group.rows[:runs].repeat_interleave(length))
            offset += runs * length
        packed = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])[None]
        self._needed = None
        if any(group.joined_now for _, group in groups):
            self._needed = self.packing.like_the_base(self._spans, keep)
        picked = along(torch.cat(positions), torch.cat(rows))
        args, kwargs = at_positions(self.base.calls[self.layer], self.base.axes[self.layer], picked)
        if args:
            args = (packed, *args[1:])
        else:
            kwargs = kwargs | {"hidden_states": packed}
        out = first_of(self.model.blocks[self.layer](*args, **kwargs))[0]
        sizes = [part.shape[0] * part.shape[1] for part in parts]
        return [piece.reshape(part.shape) for piece, part in zip(torch.split(out, sizes), parts, strict=True)]

    def _attention(self, layer: int) -> Replacement:
        def compute(call: AttentionCall) -> Tensor:
            if not self._keep:
                self._keys = {
                    number: (self._slice(call.k, number), self._slice(call.v, number))
                    for number in self._spans
                }
                raise _KeysAreThere
            pieces = [self._group_attention(call, layer, number) for number in self._spans]
            # [run head query width] to the packed row [1 head token width]
            flat = [piece.transpose(0, 1).reshape(piece.shape[1], -1, piece.shape[-1]) for piece in pieces]
            return torch.cat(flat, dim=1)[None]

        return compute

    def _group_attention(self, call: AttentionCall, layer: int, number: int) -> Tensor:
        group = self.packing.groups[number]
        q, k, v = (self._slice(x, number) for x in (call.q, call.k, call.v))
        if number in self._keys:
            k, v = (torch.cat(pair, dim=2) for pair in zip(self._keys[number], (k, v), strict=True))
        prefix = None
        if group.start:
            keys, values = (self.base.inside[site][layer][:, :, : group.start] for site in ("k", "v"))
            prefix = Prefix(keys, values, group.rows[: group.active])
        mean = None if self.mean_values is None else self.mean_values[layer]
        edits = self.packing.head_edits(layer, number, q.shape[2], q.shape[1], mean)
        mask = self._mask(layer, group, q.shape[2])
        return attend_from(call, q, k, v, prefix=prefix, mask=mask, edits=edits)

    def _mask(self, layer: int, group: Group, queries: int) -> Tensor | None:
        """Rows of the model's own mask for the last queries of a group's runs [run or 1, head or 1, query, key]."""
        mask = self.base.masks[layer]
        if mask is None:
            return None
        mask = mask[..., -queries:, :]
        return mask if len(mask) == 1 else mask[group.rows[: group.active].to(mask.device)]

    def _slice(self, x: Tensor, number: int) -> Tensor:
        """One group's part of the packed row: [1 head token width] to [run head position width]."""
        offset, length = self._spans[number]
        runs = self.packing.groups[number].active
        piece = x[0, :, offset : offset + runs * length]
        return piece.reshape(x.shape[1], runs, length, -1).transpose(0, 1)

    def _watch_additions(self, stack: ExitStack) -> None:
        """Put vectors in the place of attn_out and mlp_out, where some branch asks for it."""
        for site in ADDITIONS:
            for layer in self.packing.layers_of(site):
                module, multiplier = added_by(self.model, Site(site, layer))
                stack.enter_context(on_output(module, self._adder(site, layer, multiplier)))

    def _spare_projections(self, stack: ExitStack) -> None:
        """Take queries, keys and values of tokens that enter a block as in the base run from its recording."""
        for layer, projected in enumerate(self.base.projected):
            for module, recorded in projected.items():
                narrowed, widened = self._narrowed(layer), self._widened(layer, recorded)
                stack.callback(module.register_forward_pre_hook(narrowed).remove)
                stack.callback(module.register_forward_hook(widened).remove)

    def _narrowed(self, layer: int) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> Any:
            if self._needed is None or layer != self.layer or args[0].shape[:2] != (1, len(self._needed[0])):
                return None
            return (args[0][:, self._needed[0].to(args[0].device)], *args[1:])

        return hook

    def _widened(self, layer: int, recorded: Tensor) -> Callable[..., Any]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
            if self._needed is None or layer != self.layer:
                return None
            needed, rows, positions = self._needed
            needed = needed.to(output.device)
            if output.shape[:2] != (1, int(needed.sum())):
                return None
            out = output.new_empty(1, len(needed), output.shape[-1])
            out[0, needed] = output[0]
            out[0, ~needed] = recorded[rows, positions]
            return out

        return hook

    def _adder(self, site: str, layer: int, multiplier: float) -> Callable[[Tensor], Tensor | None]:
        def change(output: Tensor) -> Tensor | None:
            edits = self.packing.added_edits(site, layer, self._spans, self._keep) if self._keep else None
            if edits is None:
                return None
            places, values = edits
            flat = output.reshape(-1, output.shape[-1]).clone()
            flat[places] = (values / multiplier).to(flat)
            return flat.reshape(output.shape)

        return change
