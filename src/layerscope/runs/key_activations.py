"""Show the activations of MLP keys as a model computes them, keeping none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from layerscope.errors import LayerscopeError
from layerscope.models.expert_keys import ExpertCall, ExpertKeys, expert_call
from layerscope.models.fused import fused_activations
from layerscope.models.hooks import on_input, on_output
from layerscope.models.layered import LayeredModel
from layerscope.models.mlp_keys import Keys, mlp_keys


class Activations(Protocol):
    """What the keys of one block do at the tokens of one pass; good for as long as it is shown."""

    def of(self, keys: Sequence[int]) -> Float[Tensor, "batch token key"]:
        """Those of some keys."""
        ...

    def every(self) -> Iterator[tuple[slice, Float[Tensor, "batch token key"]]]:
        """Those of every key, some keys at a time; of mixtures, one expert at a time."""
        ...


See = Callable[[Activations], None]
"""Is shown what the keys of one block do."""
SeeOutput = Callable[[Tensor], None]
"""Is shown what an MLP gives [batch token width]."""

_LOGITS = 2**25  # held at one time: 128 MB


class _SeenEnough(Exception):  # noqa: N818 - not an error
    """Ends a forward pass once the last wanted block has been seen."""


@torch.no_grad()
def show_key_activations(
    model: LayeredModel,
    ids: Int[Tensor, "batch token"],
    see: Mapping[int, See],
    outputs: Mapping[int, SeeOutput] | None = None,
    *,
    routing_share: bool = True,
) -> None:
    """One whole forward pass up to the last wanted block, showing what its MLPs' keys do.

    Nothing is stored here: at any time the activations of one block exist, as in the model's own pass. What
    transformers computes in several steps is computed in one (`models/fused.py`), up to rounding the same.

    Args:
        model: the model.
        ids: rows of equal length.
        see: by layer, who is shown the keys' activations: what comes into the output projection, in the
            model's own type. Of a mixture's experts 0 where a token was not sent to the expert.
        outputs: by layer, who is shown what the output projection gives, or what the experts give, with
            the expert that every token meets where there is one [batch token width].
        routing_share: multiply the activation of an expert's key by the share of its choice; else as it is.

    Raises:
        LayerscopeError: a block without such keys, see `models.mlp_keys`.
    """
    keys, outputs = mlp_keys(model), outputs or {}
    last = max([*see, *outputs])

    with ExitStack() as stack:
        stack.enter_context(fused_activations(model.module))
        for layer in sorted({*see, *outputs}):
            shown = see.get(layer), outputs.get(layer)
            stack.enter_context(_watched(model, layer, keys[layer], ids, *shown, routing_share))
        stack.enter_context(on_output(model.blocks[last], _stop))
        try:
            model.logits(ids, last=True)
        except _SeenEnough:
            return
    raise AssertionError("the forward pass ended without reaching the block")


def _stop(_: Tensor) -> None:
    raise _SeenEnough


@contextmanager
def _watched(
    model: LayeredModel,
    layer: int,
    keys: Keys,
    ids: Tensor,
    see: See | None,
    see_output: SeeOutput | None,
    routing_share: bool,
) -> Iterator[None]:
    with ExitStack() as stack:
        if isinstance(keys, ExpertKeys):
            kept = _Mixture(keys, model.blocks[layer], tuple(ids.shape), routing_share)
            stack.enter_context(kept.watched())
            stack.enter_context(on_output(model.blocks[layer], lambda _: kept.show(see, see_output)))
        else:
            shaped = _shaper(ids)
            if see is not None:
                stack.enter_context(on_input(keys.projection, lambda x: see(_Dense(shaped(x)))))
            if see_output is not None:
                stack.enter_context(on_output(keys.projection, lambda x: see_output(shaped(x))))
        yield


def _shaper(ids: Tensor) -> Callable[[Tensor], Tensor]:
    """Some modules see their tokens as one flat row (OPT's MLP, experts)."""
    return lambda states: states.detach().reshape(*ids.shape, states.shape[-1])


@dataclass(frozen=True, eq=False)
class _Dense:
    """The activations of an MLP that every token meets [batch token key]."""

    states: Tensor

    def of(self, keys: Sequence[int]) -> Tensor:
        return self.states[:, :, list(keys)]

    def every(self) -> Iterator[tuple[slice, Tensor]]:
        yield slice(0, self.states.shape[-1]), self.states


@dataclass(frozen=True, eq=False)
class _OfExperts:
    """The activations of a mixture's experts: choices of some experts are run once more as they are asked for.

    `beside` are those of the expert that every token meets [token key].
    """

    keys: ExpertKeys
    call: ExpertCall
    beside: Tensor | None
    shape: tuple[int, ...]
    routing_share: bool

    def of(self, keys: Sequence[int]) -> Tensor:
        wanted = torch.tensor(list(keys))
        found = self.call.states.new_zeros(len(self.call.states), len(wanted))
        routed = (wanted < self.keys.n_routed).nonzero()[:, 0]
        pairs = [divmod(key, self.keys.n_units) for key in wanted[routed].tolist()]
        experts, units = (sorted(set(column)) for column in zip(*pairs, strict=True)) if pairs else ([], [])
        tokens, chosen, activations = self._run(torch.tensor(experts), units)
        for place, (expert, unit) in zip(routed.tolist(), pairs, strict=True):
            rows = chosen == expert
            found[tokens[rows], place] = activations[rows, units.index(unit)]
        beside = (wanted >= self.keys.n_routed).nonzero()[:, 0]
        if len(beside):
            assert self.beside is not None
            found[:, beside] = self.beside[:, wanted[beside] - self.keys.n_routed]
        return found.reshape(*self.shape, len(wanted))

    def every(self) -> Iterator[tuple[slice, Tensor]]:
        n = self.keys.n_units
        for expert in range(self.keys.n_experts):
            tokens, _, activations = self._run(torch.tensor([expert]), range(n))
            found = self.call.states.new_zeros(len(self.call.states), n)
            found[tokens] = activations
            yield slice(expert * n, (expert + 1) * n), found.reshape(*self.shape, n)
        if self.beside is not None:
            yield slice(self.keys.n_routed, self.keys.n_keys), self.beside.reshape(*self.shape, -1)

    def _run(self, experts: Tensor, units: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, experts and activations [choice unit] of the choices of some experts."""
        call = self.call
        rows, choices = torch.isin(call.chosen, experts.to(call.chosen)).nonzero(as_tuple=True)
        if not len(rows) or not len(units):
            return rows, call.chosen[rows, choices], call.states.new_zeros(len(rows), len(units))
        activations = self.keys.read(call, rows, choices, units)
        if self.routing_share:
            activations = activations * call.shares[rows, choices, None].to(activations)
        return rows, call.chosen[rows, choices], activations


@dataclass(eq=False)
class _Mixture:
    """Keeps what the experts of a block were called with until the block is done, and shows it then.

    Shown only then, because the expert that every token meets may be called before or after the others.
    """

    keys: ExpertKeys
    block: nn.Module
    shape: tuple[int, ...]
    routing_share: bool
    kept: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def watched(self) -> Iterator[None]:
        def keep_call(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.kept.setdefault("call", (args, kwargs))  # the first: asked again, it is not the model's own

        with ExitStack() as stack:
            stack.callback(self.keys.module.register_forward_pre_hook(keep_call, with_kwargs=True).remove)
            stack.enter_context(on_output(self._outer(), self._keep("output")))
            if self.keys.shared:
                stack.enter_context(on_input(self.keys.shared.projection, self._keep("beside")))
            yield

    def _outer(self) -> nn.Module:
        """The module that gives what all experts write."""
        if self.keys.shared is None:
            return self.keys.module
        outer = self.keys.name.rpartition(".")[0]
        inside = outer and self.keys.shared.name.startswith(f"{outer}.")
        return self.block.get_submodule(outer) if inside else self.keys.module

    def _keep(self, name: str) -> SeeOutput:
        def keep(states: Tensor) -> None:
            self.kept.setdefault(name, states.detach())

        return keep

    def show(self, see: See | None, see_output: SeeOutput | None) -> None:
        if see_output is not None:
            see_output(self.kept["output"].reshape(*self.shape, -1))
        if see is not None:
            call = expert_call(*self.kept["call"])
            if call is None:
                raise LayerscopeError(
                    "a module of experts was called in a way that it was not found to be",
                    found=f"{self.keys.name} without states, choices and shares of each token",
                    expected="the same arguments in every pass",
                    hint="report this with the model's name",
                )
            beside = self.kept.get("beside")
            flat = None if beside is None else beside.reshape(-1, beside.shape[-1])
            see(_OfExperts(self.keys, call, flat, self.shape, self.routing_share))
        self.kept.clear()


@torch.no_grad()
def top_tokens(model: LayeredModel, vectors: Float[Tensor, "vector width"]) -> Int[Tensor, "vector"]:
    """The token that each vector raises most, through the final norm and the unembedding; on the CPU.

    Logits exist for some vectors at a time only, whatever the vocabulary's size.

    Raises:
        LayerscopeError: this model's unembedding cannot be rebuilt.
    """
    dtype = next(model.module.parameters()).dtype
    at_once = max(1, _LOGITS // model.facts.vocabulary)
    pieces = [
        model.unembed(vectors[start : start + at_once].to(model.device, dtype)).float().argmax(-1).cpu()
        for start in range(0, len(vectors), at_once)
    ]
    return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.long)
