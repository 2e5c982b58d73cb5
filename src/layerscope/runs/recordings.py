"""A run to start from, and everything of it that later runs may need.

A base run may have several rows: one text under several noise draws, or several texts of equal length.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from layerscope.models.arguments import Axes, Call, along, at_positions
from layerscope.models.attention import AttentionCall, Replacement, attend, replaced, without_repeats
from layerscope.models.fused import fused_activations
from layerscope.models.hooks import at_depth, input_of, on_output
from layerscope.models.layered import LayeredModel
from layerscope.models.sites import Site
from layerscope.runs.reading import added_by


@dataclass(frozen=True)
class BaseRun:
    """Texts of equal length, with noise on some of their tokens.

    Attributes:
        ids: one row of token ids for each text. A single row serves all noise draws.
        noise: added to the residual stream before the first block [row noised width]; None for none.
        noised: positions of the noised tokens.
    """

    ids: tuple[tuple[int, ...], ...]
    noise: Tensor | None = None
    noised: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        ids: Sequence[int],
        noise: Float[Tensor, "row noised width"] | None = None,
        noised: Sequence[int] = (),
    ) -> BaseRun:
        """One text, as it is or under noise."""
        return cls((tuple(ids),), noise, tuple(noised))

    @property
    def rows(self) -> int:
        """Number of runs."""
        return len(self.ids) if self.noise is None else max(len(self.ids), len(self.noise))

    @property
    def tokens(self) -> int:
        """Tokens of each row."""
        return len(self.ids[0])

    def part(self, start: int, stop: int) -> BaseRun:
        """The run with some of its rows alone."""
        return replace(
            self,
            ids=self.ids if len(self.ids) == 1 else self.ids[start:stop],
            noise=self.noise if self.noise is None or len(self.noise) == 1 else self.noise[start:stop],
        )

    def batch(self, rows: Sequence[int] | None = None) -> Tensor:
        """Token ids of some rows, or of all."""
        rows = range(self.rows) if rows is None else rows
        return torch.tensor([self.ids[row if len(self.ids) > 1 else 0] for row in rows])

    def start(self, stream: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """The residual stream before the first block, with these rows' noise on it."""
        if self.noise is None:
            return stream
        stream = stream.clone()
        noise = self.noise if rows is None else self.noise[list(rows)]
        stream[:, list(self.noised)] += noise.to(stream)
        return stream


@dataclass
class Recording:
    """What a base run did.

    Attributes:
        run: what was run.
        states: residual stream at each depth 0 .. n_layers [row token width].
        added: vectors added by attention ("attn_out") and MLP ("mlp_out") of each block; empty if not kept.
        inside: by site (q, k, v, head_out) and block, [row head token head_width]; empty if not kept.
        masks: what the model adds to the scores of each block, [row or 1, head or 1, token, key]; None where it
            masks nothing.
        calls: arguments of each block's call.
        axes: of each block, along which axis its arguments follow the positions.
        projected: by block and linear layer, the outputs of those that run before attention
            [row token width].
    """

    run: BaseRun
    states: list[Tensor] = field(default_factory=list)
    added: dict[str, list[Tensor]] = field(default_factory=dict)
    inside: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    masks: dict[int, Tensor | None] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    axes: Sequence[Axes] = ()
    projected: list[dict[nn.Module, Tensor]] = field(default_factory=list)

    def values(self, site: str, layer: int) -> Tensor:
        """Activations of one site: [row token width], or inside attention [row head token head_width]."""
        if site == "state":
            return self.states[layer]
        return self.added[site][layer] if site in self.added else self.inside[site][layer]

    def shared(self, mask: Tensor) -> Tensor:
        """A mask without repeated rows and heads; the last layer's own, where it is the same again."""
        last = next((kept for kept in reversed(self.masks.values()) if kept is not None), None)
        mask = without_repeats(mask)
        return last if last is not None and last.shape == mask.shape and torch.equal(last, mask) else mask

    def until(self, tokens: int) -> Recording:
        """What the same run did over its first so many tokens: no token sees a later one.

        Raises:
            ValueError: noise falls on tokens that would be left out.
        """
        if any(position >= tokens for position in self.run.noised):
            raise ValueError("noise lies beyond the end")
        run = replace(self.run, ids=tuple(row[:tokens] for row in self.run.ids))
        first = torch.arange(tokens)
        return Recording(
            run,
            states=[state[:, :tokens] for state in self.states],
            added={site: [value[:, :tokens] for value in values] for site, values in self.added.items()},
            inside={
                site: {layer: value[:, :, :tokens] for layer, value in values.items()}
                for site, values in self.inside.items()
            },
            masks={
                layer: None if mask is None else mask[..., :tokens, :tokens]
                for layer, mask in self.masks.items()
            },
            calls=[
                at_positions(call, axes, along(first))
                for call, axes in zip(self.calls if self.axes else (), self.axes, strict=True)
            ],
            axes=self.axes,
            projected=[
                {module: value[:, :tokens] for module, value in values.items()} for values in self.projected
            ],
        )


@torch.no_grad()
def record(model: LayeredModel, run: BaseRun, *, keep: Collection[str] = ()) -> Recording:
    """Run it by whole forward passes, keeping its states and what else is named.

    Args:
        model: the model.
        run: what to run.
        keep: of "attn_out", "mlp_out", "q", "k", "v", "head_out" and "calls" (arguments of blocks, with
            masks). Anything through attention needs a model whose attention can be watched.
    """
    recording = Recording(run)
    with ExitStack() as stack:
        changes: dict[int, Callable[[Tensor], Tensor | None]] = {
            depth: _keep_state(recording) for depth in range(1, model.n_layers + 1)
        }
        changes[0] = _start(recording)
        stack.enter_context(at_depth(model, changes))
        for site in ("attn_out", "mlp_out"):
            if site in keep:
                _keep_added(model, site, recording, stack)
        if {"q", "k", "v", "head_out", "calls"} & set(keep):
            watches = _attention_keepers(
                model, recording, [s for s in ("q", "k", "v", "head_out") if s in keep]
            )
            stack.enter_context(replaced(model.module, watches))
        if "calls" in keep:
            stack.enter_context(fused_activations(model.module))
            recording.projected, recording.axes = [{} for _ in model.blocks], model.axes
            for layer, block in enumerate(model.blocks):
                stack.callback(
                    block.register_forward_pre_hook(_keep_call(recording), with_kwargs=True).remove
                )
                for module in block.modules():
                    if type(module) in (nn.Linear, Conv1D):
                        hook = _keep_projection(recording, layer)
                        stack.callback(module.register_forward_hook(hook).remove)
        model.logits(run.batch(), last=True)
    return recording


def _start(recording: Recording) -> Callable[[Tensor], Tensor]:
    def change(stream: Tensor) -> Tensor:
        stream = recording.run.start(stream)
        recording.states.append(stream.detach().clone())
        return stream

    return change


def _keep_state(recording: Recording) -> Callable[[Tensor], None]:
    def keep(stream: Tensor) -> None:
        recording.states.append(stream.detach().to(recording.states[0].device, copy=True))

    return keep


def _keep_call(recording: Recording) -> Callable[..., None]:
    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states = input_of(args, kwargs)
        # The states are kept apart; here only their place among the arguments matters.
        if args:
            recording.calls.append(((states[:0], *args[1:]), kwargs))
        else:
            recording.calls.append((args, kwargs | {"hidden_states": states[:0]}))

    return keep


def _keep_projection(recording: Recording, layer: int) -> Callable[..., None]:
    def keep(module: nn.Module, _: Any, output: Tensor) -> None:
        before_attention = layer not in recording.masks
        if before_attention and output.shape[:2] == (recording.run.rows, recording.run.tokens):
            recording.projected[layer][module] = output.detach()

    return keep


def _keep_added(model: LayeredModel, site: str, recording: Recording, stack: ExitStack) -> None:
    recording.added[site] = []
    shape = (recording.run.rows, recording.run.tokens, -1)
    for layer in range(model.n_layers):
        module, multiplier = added_by(model, Site(site, layer))

        def keep(output: Tensor, multiplier: float = multiplier) -> None:
            recording.added[site].append((output.detach() * multiplier).reshape(shape))

        stack.enter_context(on_output(module, keep))


def _attention_keepers(
    model: LayeredModel, recording: Recording, sites: Sequence[str]
) -> dict[nn.Module, Replacement]:
    recording.inside = {site: {} for site in sites}

    def keeper(layer: int) -> Replacement:
        def keep(call: AttentionCall) -> Tensor:
            recording.masks[layer] = None if call.mask is None else recording.shared(call.mask)
            seen = attend(call)
            for site in sites:
                recording.inside[site][layer] = getattr(seen, site).detach()
            return seen.head_out

        return keep

    return {
        module: keeper(layer) for layer, module in enumerate(model.attention_modules) if module is not None
    }
