"""One forward pass that keeps activations with their graph, and the gradients at them."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor, nn

from layerscope.models.attention import AttentionCall, Replacement, attend, replaced
from layerscope.models.hooks import Change, at_depth, on_output
from layerscope.models.layered import LayeredModel
from layerscope.models.sites import Site
from layerscope.runs.edits import ADDITIONS, IN_ATTENTION
from layerscope.runs.reading import added_by
from layerscope.runs.recordings import BaseRun

RECOMPUTED = ("q", "k")
"""Sites whose attention pattern is computed anew."""


class Tape:
    """A base run whose activations are kept with their graph.

    Every activation is handed on as a copy, so that a block that writes into what it is given leaves the
    kept one, at which the gradient is taken, alone.
    """

    def __init__(self, model: LayeredModel, run: BaseRun, sites: Collection[str], drop: bool) -> None:
        self.model, self.run, self.sites, self.drop = model, run, sites, drop
        self.kept: dict[tuple[str, int], Tensor] = {}
        self.factors: dict[tuple[str, int], float] = {}
        self.calls: dict[int, AttentionCall] = {}
        self.patterns: dict[int, Tensor] = {}
        self._blocked: int | None = None

    def logits(self) -> Tensor:
        """Logits at every position [row token vocabulary]."""
        model = self.model
        model.module.eval()
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(at_depth(model, self._states()))
            for layer, addition in enumerate(model.additions):
                if addition is None:
                    continue
                for site, name in zip(ADDITIONS, (addition.attention, addition.mlp), strict=True):
                    if name is not None and (self.drop or site in self.sites):
                        stack.enter_context(self._added(site, layer))
            if set(self.sites) & set(IN_ATTENTION):
                stack.enter_context(replaced(model.module, self._attention()))
            ids = self.run.batch().to(model.device)
            # Explicit mask and no cache, as in LayeredModel.logits, which allows no gradient.
            logits: Tensor = model.module(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        return logits

    def gradients(self, value: Tensor, *, blocked: int | None) -> dict[tuple[str, int], Tensor]:
        """Gradient at every kept activation, with what one block adds held fixed."""
        self._blocked = blocked
        found = torch.autograd.grad(value, list(self.kept.values()), retain_graph=True, allow_unused=True)
        return {
            key: torch.zeros_like(kept) if gradient is None else gradient
            for (key, kept), gradient in zip(self.kept.items(), found, strict=True)
        }

    def _states(self) -> dict[int, Change]:
        # Depth 0 is where the graph begins, asked for or not: no weight needs a gradient.
        depths = range(self.model.n_layers + 1) if "state" in self.sites else range(1)
        return {depth: self._state(depth) for depth in depths}

    def _state(self, depth: int) -> Change:
        def change(stream: Tensor) -> Tensor:
            if depth == 0:
                stream = self.run.start(stream).detach().requires_grad_()
            if "state" in self.sites:
                self.kept["state", depth] = stream
            return stream.clone()

        return change

    def _added(self, site: str, layer: int) -> ExitStack:
        module, self.factors[site, layer] = added_by(self.model, Site(site, layer))

        def stop(gradient: Tensor) -> Tensor | None:
            return gradient * 0 if self._blocked == layer else None

        def change(output: Tensor) -> Tensor:
            if site in self.sites:
                self.kept[site, layer] = output
            passed = output.clone()
            if self.drop:
                passed.register_hook(stop)  # type: ignore[no-untyped-call]
            return passed

        stack = ExitStack()
        stack.enter_context(on_output(module, change))
        return stack

    def _attention(self) -> dict[nn.Module, Replacement]:
        def keeper(layer: int) -> Replacement:
            def compute(call: AttentionCall) -> Tensor:
                copies = {site: getattr(call, site).clone() for site in ("q", "k", "v")}
                seen = attend(replace(call, **copies))
                self.calls[layer] = replace(
                    call, **{site: getattr(call, site).detach() for site in ("q", "k", "v")}
                )
                self.patterns[layer] = seen.pattern.detach()
                inside = {"q": call.q, "k": call.k, "v": call.v, "head_out": seen.head_out}
                for site, tensor in inside.items():
                    if site in self.sites or (site == "head_out" and set(RECOMPUTED) & set(self.sites)):
                        self.kept[site, layer] = tensor
                return seen.head_out.clone()

            return compute

        modules = enumerate(self.model.attention_modules)
        return {module: keeper(layer) for layer, module in modules if module is not None}
