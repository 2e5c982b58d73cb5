"""Which modules of a block are linear maps or norms, found by calling them.

A module counts as a linear map when it gives x·W + b for random x, with the weights that it holds in
either orientation; as a norm when its output ignores the length of its input. Names are never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.models.hooks import on_input, on_output
from layerscope.models.layered import LayeredModel

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 3e-2}
_ASKED = 0.02
"""Relative to the largest entry: eight bits round by a 256th, and inputs may be rounded too."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A module that gives x·matrix + bias.

    Attributes:
        name: dotted name inside the block.
        module: the module itself, for edits.
        matrix: [in out], a view of the module's own weights.
        bias: [out], zeros where there is none.
    """

    name: str
    module: nn.Module
    matrix: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class Norm:
    """What a norm does beside dividing by a length: gain · (x, less its mean) / length + shift.

    Attributes:
        gain: [width], as it multiplies (Gemma's 1 + weight is already added up).
        shift: [width].
        centres: whether the mean over entries is taken off first.
    """

    gain: Tensor
    shift: Tensor
    centres: bool


@dataclass
class Trace:
    """What went in and out of a block's modules in one forward of single tokens, in the order of calls."""

    entering: Tensor | None = None
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)


class _SeenEnough(Exception):  # noqa: N818 - not an error
    """Ends a forward pass once the block has been seen."""


@torch.no_grad()
def trace_block(
    model: LayeredModel,
    layer: int,
    *,
    rows: int = 1,
    replaced: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> Trace:
    """Run equal rows of one token each up to the end of a block, recording its modules.

    Args:
        model: the model.
        layer: the block.
        rows: how many rows; all hold the same token.
        replaced: by name inside the block, what to put in place of a module's output [row width].
    """
    block, trace, replaced = model.blocks[layer], Trace(), replaced or {}
    token = torch.full((rows, 1), 101 % model.facts.vocabulary)

    def keep(entering: Tensor) -> None:
        trace.entering = entering.detach().clone()

    with ExitStack() as stack:
        for name, module in block.named_modules():
            if name:
                stack.enter_context(_recorded(name, module, trace, replaced.get(name)))
        stack.enter_context(on_input(block, keep))
        stack.enter_context(on_output(block, _stop))
        try:
            model.logits(token, last=True)
        except _SeenEnough:
            return trace
    raise AssertionError("the forward pass ended without reaching the block")


def _stop(_: Tensor) -> None:
    raise _SeenEnough


@contextmanager
def _recorded(
    name: str, module: nn.Module, trace: Trace, replace: Callable[[Tensor], Tensor] | None
) -> Iterator[None]:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = args[0] if args else kwargs.get("hidden_states")
        trace.calls[name] = (args, kwargs)
        if isinstance(first, Tensor) and first.is_floating_point():
            trace.inputs[name] = first.detach().clone()

    def after(output: Any) -> Tensor | None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        replacement = None if replace is None else replace(output.reshape(-1, output.shape[-1]))
        kept = output if replacement is None else replacement.reshape(output.shape).to(output)
        trace.outputs.pop(name, None)
        trace.outputs[name] = kept.detach().clone()
        return None if replacement is None else kept

    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        with on_output(module, after):
            yield
    finally:
        handle.remove()


def linear_maps(
    block: nn.Module, trace: Trace, *, inside: str = "", packed: bool = False
) -> dict[str, LinearMap]:
    """The block's linear maps by name, in the order of their calls.

    Args:
        block: the block.
        trace: of it.
        inside: only maps of the module of this name.
        packed: ask those with packed weights for their matrix too; else they are passed over.
    """
    found = {}
    for name in trace.outputs:
        module = block.get_submodule(name)
        if name in trace.inputs and name.startswith(inside) and not list(module.children()):
            one = as_linear(name, module, trace.inputs[name].shape[-1], packed=packed)
            if one is not None:
                found[name] = one
    return found


@torch.no_grad()
def as_linear(name: str, module: nn.Module, width: int, *, packed: bool = False) -> LinearMap | None:
    """A module as a linear map of rows of this width; None where it is none, or holds no such matrix.

    With `packed`, a module whose weights do not lie there as a matrix is asked for it, row by row.
    """
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or is_packed(weight) or width not in weight.shape:
        return _asked(name, module, width) if packed else None
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(4, width, generator=generator).to(weight)
    try:
        given = module(probe)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None
    if not isinstance(given, Tensor):
        return None
    bias = bias if isinstance(bias, Tensor) else weight.new_zeros(given.shape[-1])
    for matrix in (weight.T, weight):
        if matrix.shape == (width, given.shape[-1]) and nearly(probe @ matrix + bias, given):
            return LinearMap(name, module, matrix.detach(), bias.detach())
    return None


def _asked(name: str, module: nn.Module, width: int) -> LinearMap | None:
    """What a module makes of unit vectors, where it makes the same sums of others: up to packing's rounding."""
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if not tensors:
        return None
    kind = next((one.dtype for one in tensors if one.is_floating_point()), torch.float32)
    rows = torch.cat([torch.zeros(1, width), torch.eye(width)]).to(tensors[0].device)
    probe = torch.randn(4, width, generator=torch.Generator().manual_seed(0)).to(rows)
    try:
        given, expected = module(rows.to(kind)).float(), module(probe.to(kind)).float()
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return None
    matrix, bias = given[1:] - given[0], given[0]
    if matrix.dim() != 2 or (probe @ matrix + bias - expected).abs().max() > _ASKED * expected.abs().max():
        return None
    return LinearMap(name, module, matrix, bias)


def signature(block: nn.Module) -> tuple[object, ...]:
    """Equal for blocks built of modules of the same names, kinds and shapes."""
    return tuple(
        (name, type(module).__name__, tuple(tuple(p.shape) for p in module.parameters(recurse=False)))
        for name, module in block.named_modules()
    )


def is_packed(weight: Tensor) -> bool:
    """Whether a tensor holds quantised weights: whole numbers, eight bits or fewer, or a class of its own."""
    plain = type(weight.data) in (Tensor, nn.Parameter)
    return not plain or not weight.is_floating_point() or weight.element_size() < 2


def adapted_module(block: nn.Module) -> str:
    """The name and class of a module that adds something to another one of its own kind, or empty.

    Adapters keep what they wrap as their base layer, which looks like the whole and is not.
    """
    for name, module in block.named_modules():
        if isinstance(getattr(module, "base_layer", None), nn.Module):
            return f"{name} ({type(module).__name__})"
    return ""


def packed_module(block: nn.Module) -> str:
    """The name and class of a module with packed weights, or empty."""
    for name, module in block.named_modules():
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        matrices = [tensor for tensor in tensors if tensor.dim() >= 2]
        # Masks are matrices of truth values, and rotary tables are floats: neither is packed.
        wide = [tensor for tensor in matrices if tensor.dtype is not torch.bool]
        own = type(module).__module__.startswith(("torch.ao.", "bitsandbytes.", "torchao."))
        if own or any(is_packed(tensor) for tensor in wide):
            return f"{name} ({type(module).__name__})"
    return ""


@torch.no_grad()
def as_norm(module: nn.Module, width: int) -> Norm | None:
    """What a norm multiplies by, adds and takes off, by feeding it signs; None where it is no norm.

    Entries of ±64 with mean 0 have a length of 64 per entry, beside which the norm's epsilon vanishes:
    the output is the gain with the entry's sign, plus the shift.
    """
    pieces = [_signs(width, empty) for empty in ((None,) if width % 2 == 0 else (0, 1))]
    try:
        probes = torch.stack(pieces).to(next(module.parameters(), torch.empty(0)))
        above, below, longer, moved = (module(x).float() for x in (probes, -probes, 4 * probes, probes + 16))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return None
    if above.shape != probes.shape or not nearly(longer, above) or nearly(above, probes.float()):
        return None
    per_entry = (above - below) / 2 / probes.float() * 64
    shares = torch.tensor([float(piece.square().mean().sqrt()) / 64 for piece in pieces])
    gains = per_entry * shares.to(per_entry)[:, None]
    gain = gains[0] if len(pieces) == 1 else torch.where(pieces[0].to(gains) == 0, gains[1], gains[0])
    return Norm(gain, ((above + below) / 2)[0], nearly(moved, above))


def _signs(width: int, empty: int | None) -> Tensor:
    signs = 64.0 * torch.tensor([1.0, -1.0]).repeat(width // 2 + 1)[:width]
    if empty is not None:
        rest = 64.0 * torch.tensor([1.0, -1.0]).repeat(width // 2)
        signs = torch.cat([rest[:empty], torch.zeros(1), rest[empty:]])
    return signs


def nearly(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree up to the rounding of the second's type, relative to its largest entry."""
    tolerance = _TOLERANCE.get(b.dtype, 3e-2)
    a, b = a.double(), b.double()
    return bool(((a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1e-30)).item())


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two recorded tensors hold the same entries, whatever their shape."""
    return (
        a is not None and b is not None and a.numel() == b.numel() and torch.equal(a.flatten(), b.flatten())
    )
