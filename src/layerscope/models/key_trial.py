"""Which module of a block is its MLP's output projection? Found by calling a copy of the block.

No name tells in every family. So a copy of the block with random weights is
called a few times:

1. the first token's state is changed, and the map whose input changes at other tokens is fed by what
   mixes tokens (attention, a recurrence). Its output is held, and the same is done again until no
   other input changes;
2. of the maps that are left, those that feed a mixing one are queries, keys and their like; those that
   feed another map are the way in (up, gate). The one whose output goes nowhere but out of the block
   is the output projection.

Random weights, because a trained map may be silent. A module that holds stacks of matrices is one of
experts, whose keys `expert_keys.py` reads; an output projection that is left beside it belongs to
an expert that every token meets.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from layerscope.models.arguments import Call
from layerscope.models.dense_keys import MlpKeys
from layerscope.models.expert_keys import ExpertKeys, find_expert_keys
from layerscope.models.hooks import first_of, input_of, on_input, on_output, with_input
from layerscope.models.probe import moved

_MOST_MIXERS = 8


@dataclass(frozen=True)
class NotFound:
    """What a block has instead of one output projection or one module of experts."""

    found: str


def _maps(block: nn.Module) -> dict[str, nn.Module]:
    """Modules that hold a matrix, or a packed one, and no other module."""
    return {
        name: module
        for name, module in block.named_modules()
        if name and not list(module.children()) and _holds_a_matrix(module)
    }


def _holds_a_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return (isinstance(weight, Tensor) and weight.dim() == 2) or hasattr(module, "in_features")


class BlockTrial:
    """A block that is called again and again, with a change here and what follows from it there."""

    def __init__(self, block: nn.Module, call: Call) -> None:
        self.block, self.call = _randomised(block, call)
        self.maps = _maps(self.block)
        self.width = input_of(*self.call).shape[-1]
        self.before = self._run()

    def keys(self) -> str | ExpertKeys | NotFound:
        """The output projection's name, or the experts of the copy, or what was found instead."""
        mixers = self._mixers()
        experts = [name for name in self._experts() if name not in mixers and not self._feeds(name, mixers)]
        ends = [
            name
            for name, output in self.before.outputs.items()
            if name not in mixers
            and output.shape[-1] == self.width
            and not self._feeds(name, [other for other in self.maps if other != name])
            and self._reaches_the_end(name)
        ]
        if len(ends) > 1 or len(ends) + len(experts) == 0:
            return NotFound(
                f"{len(ends)} such projections: {', '.join(ends)}" if ends else "no such projection"
            )
        if not experts:
            return ends[0]
        return self._keys_of_experts(experts, ends)

    def _keys_of_experts(self, experts: list[str], beside: list[str]) -> ExpertKeys | NotFound:
        if len(experts) > 1:
            return NotFound(f"experts in {len(experts)} modules ({', '.join(experts)})")
        (name,) = experts
        module = self.block.get_submodule(name)
        found = find_expert_keys(name, module, self._call_of(module))
        if isinstance(found, str):
            return NotFound(f"experts ({name}): {found}")
        shared = [MlpKeys(one, self.block.get_submodule(one), 0) for one in beside]
        return replace(found, shared=shared[0] if shared else None)

    def _call_of(self, module: nn.Module) -> Call:
        calls: list[Call] = []
        handle = module.register_forward_pre_hook(
            lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
        )
        try:
            self._run()
        finally:
            handle.remove()
        return calls[0]

    def _mixers(self) -> list[str]:
        """Maps that are fed by what mixes tokens."""
        mixers: list[str] = []
        for _ in range(_MOST_MIXERS):
            after = self._run(first_changed=True, held=mixers)
            fed = [
                name
                for name in after.inputs
                if name not in mixers
                and _differ(_others(after.inputs[name]), _others(self.before.inputs[name]))
            ]
            if not fed:
                break
            mixers.append(fed[0])
        return mixers

    def _experts(self) -> list[str]:
        """Modules that hold matrices in a stack of their own."""
        return [
            name
            for name, module in self.block.named_modules()
            if not isinstance(module, nn.Conv1d | nn.Conv2d)
            and any(p.dim() >= 3 for p in module.parameters(recurse=False))
        ]

    def _feeds(self, name: str, others: Iterable[str]) -> bool:
        after = self._run(moved=name)
        return any(
            other in after.inputs and _differ(after.inputs[other], self.before.inputs[other])
            for other in others
        )

    def _reaches_the_end(self, name: str) -> bool:
        return _differ(self._run(moved=name).result, self.before.result)

    def _run(self, *, first_changed: bool = False, held: Iterable[str] = (), moved: str = "") -> _Seen:
        """Call the block with another first token, with outputs held as they were, or with one moved."""
        seen = _Seen({}, {}, torch.empty(0))
        args, kwargs = self.call
        states = input_of(args, kwargs).clone()
        if first_changed:
            states[:, 0] = states[:, 0].flip(-1) * 1.5 + 1.0
        with ExitStack() as stack:
            for name, module in self.maps.items():
                stack.enter_context(on_input(module, _keeper(seen.inputs, name)))
                stack.enter_context(on_output(module, _keeper(seen.outputs, name)))
            for name in held:
                stack.enter_context(on_output(self.maps[name], _holder(self.before.outputs[name])))
            if moved:
                stack.enter_context(on_output(self.block.get_submodule(moved), _mover))
            args, kwargs = with_input(args, kwargs, states)
            seen.result = first_of(self.block(*args, **kwargs)).clone()
        return seen


@dataclass
class _Seen:
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    result: Tensor


def _randomised(block: nn.Module, call: Call) -> tuple[nn.Module, Call]:
    """A copy of the block with random weights in float32; as it is where its weights are packed."""
    if any(not parameter.is_floating_point() for parameter in block.parameters()):
        return block, call
    twin = copy.deepcopy(block).float().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in twin.parameters():
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter.device)
        scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
        parameter.data = drawn * scale + (1.0 if parameter.dim() == 1 else 0.0)
    args, kwargs = moved(call, torch.float32)
    states = input_of(args, kwargs)
    random = torch.randn(states.shape, generator=generator).to(states)
    return twin, with_input(args, kwargs, random)


def _keeper(kept: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    def keep(tensor: Tensor) -> None:
        kept[name] = tensor.detach().clone()

    return keep


def _holder(tensor: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _: tensor.clone()


def _mover(output: Tensor) -> Tensor:
    wave = torch.linspace(-1, 1, output.shape[-1], device=output.device, dtype=output.dtype)
    return output + wave * (1.0 + output.abs().max())


def _others(states: Tensor) -> Tensor:
    """All tokens but the first; some modules see tokens as one flat row."""
    return states.reshape(-1, states.shape[-1])[1:]


def _differ(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return True
    return bool((a - b).abs().max() > 1e-4 * b.abs().max().clamp_min(1e-6))
