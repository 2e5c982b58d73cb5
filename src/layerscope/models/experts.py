"""The matrices of experts that families keep in one tensor [expert, ., .], found by trying.

Which axis lies along the residual stream is told by derivatives: for one token, the derivative of an
output by a matrix is an outer product, along the input where the matrix reads, and along what is asked of
the output where it writes. Which columns are the gate is told as for any MLP.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from layerscope.models.linear_maps import Trace, is_packed
from layerscope.models.mlp_weights import MlpWeights, halves, straight

_ALIKE = 0.999


@dataclass(frozen=True, eq=False)
class Expert:
    """One expert, and the module that it lies in."""

    module_name: str
    weights: MlpWeights


def find_experts(block: nn.Module, trace: Trace, width: int) -> tuple[list[Expert], str]:
    """The experts of a block, or none, with the reason where there are some that cannot be read."""
    for name, module in block.named_modules():
        stacks = stacks_of(module, width)
        if len(stacks) < 2 or name not in trace.inputs or len({len(s) for s in stacks.values()}) != 1:
            continue
        reads, writes, why = told_apart(module, stacks, trace.calls[name], trace.inputs[name])
        if why:
            return [], why
        return [Expert(name, one) for one in _experts(module, reads, writes, trace.calls[name])], ""
    return [], ""


Call = tuple[tuple[Any, ...], dict[str, Any]]
Sides = dict[str, Tensor]
"""Stacks by parameter name."""


def stacks_of(module: nn.Module, width: int) -> Sides:
    """A module's own tensors [expert, ., .] with an axis along the residual stream, by name."""
    return {
        key: weight
        for key, weight in module.named_parameters(recurse=False)
        if weight.dim() == 3 and not is_packed(weight) and width in weight.shape[1:]
    }


def told_apart(module: nn.Module, stacks: Sides, call: Call, entering: Tensor) -> tuple[Sides, Sides, str]:
    """Which stacks read and which write, each turned to [expert width unit] or [expert unit width].

    Args:
        module: of the experts.
        stacks: its tensors, by name.
        call: arguments of one token.
        entering: the state among them.

    Returns:
        what reads, what writes (one), and why neither could be told, or empty.
    """
    generator = torch.Generator().manual_seed(3)
    try:
        with torch.enable_grad():
            copies = {name: weight.detach().clone().requires_grad_() for name, weight in stacks.items()}
            out = functional_call(module, copies, *call)
            asked = torch.randn(out.shape, generator=generator).to(out)
            grads = torch.autograd.grad((out * asked).sum(), list(copies.values()))
    except (RuntimeError, NotImplementedError, TypeError) as error:
        return {}, {}, f"the experts' derivatives could not be taken ({type(error).__name__})"
    reads: Sides = {}
    writes: Sides = {}
    for (name, weight), grad in zip(stacks.items(), grads, strict=True):
        used = grad[int(grad.flatten(1).abs().sum(1).argmax())].double()
        if _along(used, entering, 0):
            reads[name] = weight.detach()
        elif _along(used, entering, 1):
            reads[name] = weight.detach().transpose(1, 2)
        elif _along(used, asked, 1):
            writes[name] = weight.detach()
        elif _along(used, asked, 0):
            writes[name] = weight.detach().transpose(1, 2)
    if not reads or len(writes) != 1:
        return {}, {}, "which of the experts' tensors read and which write could not be told"
    return reads, writes, ""


def _along(grad: Tensor, vector: Tensor, axis: int) -> bool:
    """Whether the derivative is an outer product with this vector along an axis."""
    vector = vector.detach().double().flatten()
    if grad.shape[axis] != len(vector):
        return False
    grad = grad if axis == 0 else grad.T
    whole = grad.norm() * vector.norm()
    return bool(((vector @ grad).norm() >= _ALIKE * whole).item()) and bool((whole > 0).item())


def _experts(module: nn.Module, reads: Sides, writes: Sides, call: Call) -> Iterator[MlpWeights]:
    (write,) = writes.values()
    kinds = _kinds(module, reads, write.shape[1], call)
    for number in range(len(write)):
        parts = {
            kind: stack[number] if at is None else stack[number][:, at] for kind, (stack, at) in kinds.items()
        }
        yield MlpWeights(
            name=f"expert {number}",
            reads={kind: _floats(matrix) for kind, matrix in parts.items()},
            read_biases={},
            writes=_floats(write[number]),
            write_bias=torch.zeros(write.shape[2]).to(write),
            before=None,
            before_known=True,
            after=None,
            output_map=None,
        )


def _kinds(
    module: nn.Module, reads: Sides, units: int, call: Call
) -> dict[str, tuple[Tensor, Tensor | None]]:
    if len(reads) == 1:
        ((name, stack),) = reads.items()
        if stack.shape[2] == units:
            return {"in": (stack, None)}
        for columns in halves(2 * units):
            if _straight_in(module, name, stack, columns["in"], call):
                return {kind: (stack, at) for kind, at in columns.items()}
        return {"gate and in": (stack, None)}
    names = list(reads)
    for inner in names:
        if _straight_in(module, inner, reads[inner], torch.arange(reads[inner].shape[2]), call):
            gate = next(name for name in names if name != inner)
            return {"gate": (reads[gate], None), "in": (reads[inner], None)}
    return {name: (reads[name], None) for name in names}


def _straight_in(module: nn.Module, name: str, stack: Tensor, columns: Tensor, call: Call) -> bool:
    """Whether the output is a straight line along a factor on these columns."""
    turned = module.get_parameter(name).shape != stack.shape or not torch.equal(
        module.get_parameter(name), stack
    )
    given = []
    for factor in (-1.0, 0.0, 1.0):
        changed = stack.clone()
        changed[:, :, columns] *= factor
        changed = changed.transpose(1, 2) if turned else changed
        given.append(functional_call(module, {name: changed.contiguous()}, *call).flatten())
    return straight(torch.stack(given), tolerance=1e-3 if given[0].element_size() >= 4 else 5e-2)


def _floats(weights: Tensor) -> Tensor:
    return weights.float() if weights.element_size() < 4 else weights
