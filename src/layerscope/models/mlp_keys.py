"""Where each block's MLP keeps its keys and values, found by trying.

An MLP's output projection multiplies what comes into it by its rows and adds them up: what comes in is
the activation of the keys (in gated MLPs the product of gate and up), its rows are the value vectors.
Which module that is, no name tells in every family. So a copy of the block with random weights is
called a few times:

1. the first token's state is changed, and the map whose input changes at other tokens is fed by what
   mixes tokens (attention, a recurrence). Its output is held, and the same is done again until no
   other input changes;
2. of the maps that are left, those that feed a mixing one are queries, keys and their like; those that
   feed another map are the way in (up, gate). The one whose output goes nowhere but out of the block
   is the output projection.

Random weights, because a trained map may be silent. A module that holds stacks of matrices is one of
experts, whose keys `models/expert_keys.py` reads; an output projection that is left beside it belongs to
an expert that every token meets.

Source: Geva et al. 2021, "Transformer Feed-Forward Layers Are Key-Value Memories", section 2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from layerscope.errors import LayerscopeError
from layerscope.models.expert_keys import ExpertKeys, find_expert_keys
from layerscope.models.hooks import first_of, input_of, on_input, on_output, with_input
from layerscope.models.layered import LayeredModel
from layerscope.models.linear_maps import signature

_TOKENS = 5
_MOST_MIXERS = 8


@dataclass(frozen=True)
class MlpKeys:
    """The keys of one block whose MLP serves every token.

    Attributes:
        name: the output projection's dotted name inside the block.
        projection: that module: keys' activations come in, values' sum goes out.
        n_keys: how many keys there are.
    """

    name: str
    projection: nn.Module
    n_keys: int

    def values(self, keys: Iterable[int]) -> Float[Tensor, "key width"]:
        """The value vectors of some keys: what the projection adds for an activation of 1, in float32."""
        wanted = torch.tensor(list(keys), dtype=torch.long)
        module = self.projection
        if type(module) is nn.Linear:
            linear = module.weight.detach()
            return linear[:, wanted.to(linear.device)].T.float()
        if type(module) is Conv1D:
            weight = cast(Tensor, module.weight).detach()
            return weight[wanted.to(weight.device)].float()
        return self._by_trying(wanted)

    @torch.no_grad()
    def _by_trying(self, wanted: Tensor) -> Tensor:
        # Packed weights have no rows to look at, but they can be asked.
        parameter = next(self.projection.parameters())
        dtype = parameter.dtype if parameter.is_floating_point() else torch.float32
        asked = torch.zeros(len(wanted) + 1, self.n_keys, device=parameter.device, dtype=dtype)
        asked[torch.arange(len(wanted)), wanted] = 1.0
        answered = first_of(self.projection(asked)).float()
        return answered[:-1] - answered[-1]


Keys = MlpKeys | ExpertKeys

_FOUND: WeakKeyDictionary[LayeredModel, tuple[Keys, ...]] = WeakKeyDictionary()


def mlp_keys(model: LayeredModel) -> tuple[Keys, ...]:
    """The keys of every block, in order; found once for a model.

    Raises:
        LayerscopeError: a block with neither one output projection nor a module of experts that can be
            read. Says which block, and what it has instead.
    """
    if model not in _FOUND:
        _FOUND[model] = _find(model)
    return _FOUND[model]


@torch.no_grad()
def _find(model: LayeredModel) -> tuple[Keys, ...]:
    calls = _calls(model)
    known: dict[Any, str | ExpertKeys | _Refusal] = {}
    found: list[Keys] = []
    for layer, (block, call) in enumerate(zip(model.blocks, calls, strict=True)):
        shape = signature(block)
        if shape not in known:
            known[shape] = _Trial(block, call).keys()
        like = known[shape]
        if isinstance(like, _Refusal):
            raise LayerscopeError(
                f"the keys of block {layer} of {model.facts.name} cannot be read",
                found=like.found,
                expected="an MLP whose one output projection holds a value vector for each key, or experts in "
                "one module that is told which of them each token chose",
                hint="another family: gpt2, EleutherAI/pythia-160m, a Llama, a Mixtral",
            )
        if isinstance(like, ExpertKeys):
            shared = like.shared and _dense(like.shared.name, block, call)
            found.append(replace(like, module=block.get_submodule(like.name), shared=shared))
        else:
            found.append(_dense(like, block, call))
    return tuple(found)


def _dense(name: str, block: nn.Module, call: _Call) -> MlpKeys:
    module = block.get_submodule(name)
    return MlpKeys(name, module, _entries(module, block, call))


@dataclass(frozen=True)
class _Refusal:
    found: str


_Call = tuple[tuple[Any, ...], dict[str, Any]]


def _calls(model: LayeredModel) -> list[_Call]:
    """The arguments with which each block is called on a short probe."""
    calls: list[_Call] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(with_input(args, kwargs, input_of(args, kwargs).clone()))

    tokens = min(_TOKENS, model.facts.context or _TOKENS)
    ids = (torch.arange(tokens)[None] * 7919 + 101) % model.facts.vocabulary
    with ExitStack() as stack:
        for block in model.blocks:
            stack.callback(block.register_forward_pre_hook(keep, with_kwargs=True).remove)
        model.logits(ids, last=True)
    return calls


def _entries(module: nn.Module, block: nn.Module, call: _Call) -> int:
    sizes: list[int] = []
    with on_input(module, lambda states: sizes.append(states.shape[-1])):
        block(*call[0], **call[1])
    return sizes[0]


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


class _Trial:
    """A block that is called again and again, with a change here and what follows from it there."""

    def __init__(self, block: nn.Module, call: _Call) -> None:
        self.block, self.call = _randomised(block, call)
        self.maps = _maps(self.block)
        self.width = input_of(*self.call).shape[-1]
        self.before = self._run()

    def keys(self) -> str | ExpertKeys | _Refusal:
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
            return _Refusal(
                f"{len(ends)} such projections: {', '.join(ends)}" if ends else "no such projection"
            )
        if not experts:
            return ends[0]
        return self._keys_of_experts(experts, ends)

    def _keys_of_experts(self, experts: list[str], beside: list[str]) -> ExpertKeys | _Refusal:
        if len(experts) > 1:
            return _Refusal(f"experts in {len(experts)} modules ({', '.join(experts)})")
        (name,) = experts
        module = self.block.get_submodule(name)
        found = find_expert_keys(name, module, self._call_of(module))
        if isinstance(found, str):
            return _Refusal(f"experts ({name}): {found}")
        shared = [MlpKeys(one, self.block.get_submodule(one), 0) for one in beside]
        return replace(found, shared=shared[0] if shared else None)

    def _call_of(self, module: nn.Module) -> _Call:
        calls: list[_Call] = []
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


def _randomised(block: nn.Module, call: _Call) -> tuple[nn.Module, _Call]:
    """A copy of the block with random weights in float32; as it is where its weights are packed."""
    if any(not parameter.is_floating_point() for parameter in block.parameters()):
        return block, call
    twin = copy.deepcopy(block).float().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in twin.parameters():
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter.device)
        scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
        parameter.data = drawn * scale + (1.0 if parameter.dim() == 1 else 0.0)
    args, kwargs = _in_float32(call)
    states = input_of(args, kwargs)
    random = torch.randn(states.shape, generator=generator).to(states)
    return twin, with_input(args, kwargs, random)


def _in_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, tuple | list):
        return type(value)(_in_float32(entry) for entry in value)
    if isinstance(value, Mapping) and type(value) is dict:
        return {key: _in_float32(entry) for key, entry in value.items()}
    return value


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
