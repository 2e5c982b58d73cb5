"""The keys of a mixture's experts: which module holds them, and what excites them at the tokens that meet them.

In transformers the experts of a block are one module, called with states [token width], the experts that
each token chose [token choice], and the share of each choice [token choice]. A key is a neuron of one
expert. Its activation is not shown by any module's input, since the output matrices are multiplied inside
that one call. So the module is called once more, each choice of a token as a row of its own, with an output
matrix that hands out some neurons instead: what comes back is their activations, whatever the family's gate.

Which of the module's tensors writes is told by derivatives (`models/experts.py`). That all this holds is
tried on the block's copy with random weights: activations times values, weighted by the shares, must add up
to what the module itself gives; a norm behind the experts, or another way to call them, is refused by name.

Source: Geva et al. 2021, "Transformer Feed-Forward Layers Are Key-Value Memories", each expert being an MLP.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from layerscope.models.dense_keys import MlpKeys
from layerscope.models.experts import stacks_of, told_apart

_ROUNDING = 1e-4
"""Of the largest entry, in float32: how far activations times values may be from the module's own output."""


@dataclass(frozen=True)
class ExpertCall:
    """What an experts' module was called with.

    Attributes:
        args, kwargs: the arguments as they were.
        states: [token width].
        chosen: the experts that each token was sent to [token choice].
        shares: what the output of each choice is multiplied by [token choice].
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    states: Float[Tensor, "token width"]
    chosen: Int[Tensor, "token choice"]
    shares: Float[Tensor, "token choice"]

    def with_rows(self, rows: Tensor, choices: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with a row for each of some choices, each with its expert alone and a share of 1."""
        new = {
            id(self.states): self.states[rows],
            id(self.chosen): self.chosen[rows, choices][:, None],
            id(self.shares): torch.ones_like(self.shares[:1, :1]).expand(len(rows), 1).contiguous(),
        }
        args = tuple(new.get(id(one), one) for one in self.args)
        return args, {name: new.get(id(one), one) for name, one in self.kwargs.items()}


def expert_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExpertCall | None:
    """A call as states, choices and shares; None where they are not all among its arguments."""
    tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor) and one.dim() == 2]
    if not tensors or not tensors[0].is_floating_point():
        return None
    states, rest = tensors[0], tensors[1:]
    chosen = [one for one in rest if not one.is_floating_point() and len(one) == len(states)]
    if len(chosen) != 1:
        return None
    shares = [one for one in rest if one.is_floating_point() and one.shape == chosen[0].shape]
    return ExpertCall(args, kwargs, states, chosen[0], shares[0]) if len(shares) == 1 else None


@dataclass(frozen=True, eq=False)
class ExpertKeys:
    """The keys of the experts of one block, numbered expert by expert; those of a shared expert come last.

    Attributes:
        name: dotted name of the experts' module inside the block.
        module: that module.
        writes: its parameter that holds the output matrices.
        turned: False where that is [expert unit width], True where it is [expert width unit].
        biases: its parameters that are added to the output.
        n_experts: how many experts tokens are sent to.
        n_units: neurons of each.
        shared: the keys of the MLP beside them that every token meets, or None.
    """

    name: str
    module: nn.Module
    writes: str
    turned: bool
    biases: tuple[str, ...]
    n_experts: int
    n_units: int
    shared: MlpKeys | None

    @property
    def n_keys(self) -> int:
        """All keys of the block."""
        return self.n_routed + (self.shared.n_keys if self.shared else 0)

    @property
    def n_routed(self) -> int:
        """Keys of the experts that tokens are sent to."""
        return self.n_experts * self.n_units

    def values(self, keys: Iterable[int]) -> Float[Tensor, "key width"]:
        """The value vectors of some keys: what one adds for an activation of 1 and a share of 1, in float32."""
        wanted = torch.tensor(list(keys), dtype=torch.long)
        stack = self.module.get_parameter(self.writes).detach()
        routed = (wanted < self.n_routed).nonzero()[:, 0]
        width = stack.shape[1 if self.turned else 2]
        found = torch.empty(len(wanted), width, device=stack.device)
        expert, unit = wanted[routed] // self.n_units, wanted[routed] % self.n_units
        found[routed] = (stack[expert, :, unit] if self.turned else stack[expert, unit]).float()
        beside = (wanted >= self.n_routed).nonzero()[:, 0]
        if len(beside):
            assert self.shared is not None
            numbers = (wanted[beside] - self.n_routed).tolist()
            found[beside] = self.shared.values(numbers).to(found.device)
        return found

    @torch.no_grad()
    def read(
        self, call: ExpertCall, rows: Tensor, choices: Tensor, units: Sequence[int]
    ) -> Float[Tensor, "row unit"]:
        """Activations of some neurons in the experts of some choices, each choice a token and a number.

        As many neurons are read by one call of the module as the residual stream is wide.
        """
        stack = self.module.get_parameter(self.writes)
        width = call.states.shape[-1]
        args, kwargs = call.with_rows(rows, choices)
        pieces = []
        for start in range(0, len(units), width):
            some = list(units[start : start + width])
            hand_out = torch.zeros(self.n_units, width, device=stack.device, dtype=stack.dtype)
            hand_out[some, range(len(some))] = 1.0
            hand_out = (hand_out.T.contiguous() if self.turned else hand_out).expand(stack.shape)
            given = functional_call(self.module, {self.writes: hand_out} | self._no_biases(), args, kwargs)
            pieces.append(given[:, : len(some)])
        return torch.cat(pieces, dim=1)

    def _no_biases(self) -> dict[str, Tensor]:
        return {name: torch.zeros_like(self.module.get_parameter(name)) for name in self.biases}


def find_expert_keys(
    name: str, module: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]]
) -> ExpertKeys | str:
    """The keys of a module of experts with random weights, or why they cannot be read.

    Args:
        name: of the module inside its block.
        module: the module.
        call: arguments that it was called with, of a few tokens.
    """
    told = expert_call(*call)
    if told is None:
        return "it is not told which experts each token chose and their shares"
    one = expert_call(*_first_token(told))
    assert one is not None
    stacks = stacks_of(module, told.states.shape[-1])
    if len(stacks) < 2:
        return "its matrices do not lie in stacks of floating-point numbers, an expert after the other"
    _, writes, why = told_apart(module, stacks, (one.args, one.kwargs), one.states)
    if why:
        return why
    ((parameter, matrix),) = writes.items()
    found = ExpertKeys(
        name=name,
        module=module,
        writes=parameter,
        turned=matrix.stride() != module.get_parameter(parameter).stride(),
        biases=(),
        n_experts=matrix.shape[0],
        n_units=matrix.shape[1],
        shared=None,
    )
    found = replace(found, biases=_output_biases(found, told))
    if not _adds_up(found, told, matrix):
        return "what its experts write is not activations times an output matrix, weighted by the shares"
    return found


def _first_token(call: ExpertCall) -> tuple[tuple[Any, ...], dict[str, Any]]:
    parts = {id(one): one[:1] for one in (call.states, call.chosen, call.shares)}
    args = tuple(parts.get(id(one), one) for one in call.args)
    return args, {name: parts.get(id(one), one) for name, one in call.kwargs.items()}


def _silent(keys: ExpertKeys, call: ExpertCall, changed: dict[str, Tensor]) -> Tensor:
    """What the module gives where its output matrices are nothing, and some parameters something else."""
    none = torch.zeros_like(keys.module.get_parameter(keys.writes))
    given = functional_call(keys.module, {keys.writes: none} | changed, call.args, call.kwargs)
    assert isinstance(given, Tensor)
    return given


def _output_biases(keys: ExpertKeys, call: ExpertCall) -> tuple[str, ...]:
    """Parameters that show in the output even where the output matrices are nothing."""
    plain = _silent(keys, call, {})
    return tuple(
        name
        for name, parameter in keys.module.named_parameters(recurse=False)
        if parameter.dim() < 3 and not torch.equal(_silent(keys, call, {name: parameter + 1.0}), plain)
    )


def _adds_up(keys: ExpertKeys, call: ExpertCall, matrix: Float[Tensor, "expert unit width"]) -> bool:
    given = keys.module(*call.args, **call.kwargs)
    if not isinstance(given, Tensor) or given.shape != call.states.shape:
        return False
    rows, choices = torch.ones_like(call.chosen).nonzero(as_tuple=True)
    activations = keys.read(call, rows, choices, range(keys.n_units))
    experts = call.chosen[rows, choices].tolist()
    written = torch.stack([one @ matrix[expert] for one, expert in zip(activations, experts, strict=True)])
    weighted = written * call.shares[rows, choices, None].to(written)
    ours = _silent(keys, call, {}).index_add(0, rows, weighted)
    return bool((ours - given).abs().max() <= _ROUNDING * given.abs().max())
