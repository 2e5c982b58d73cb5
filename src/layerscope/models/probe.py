"""A short text that every model is tried on, and one forward pass of it with all that went in and out of its blocks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.models.arguments import Call
from layerscope.models.hooks import first_of, input_of, on_output, with_input
from layerscope.models.layered import LayeredModel
from layerscope.models.noting import refusal
from layerscope.models.structure import neighbours_of_blocks

_PROBE_TOKENS = 9


@dataclass
class Recorded:
    """One forward of the probe, with all that went in and out of its blocks."""

    logits: Tensor
    calls: list[Call] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    after: list[nn.Module] = field(default_factory=list)


def probe_ids(model: LayeredModel, tokens: int = _PROBE_TOKENS) -> Tensor:
    """Three rows of well-spread token ids, the same on every load; no more than the model's context."""
    tokens = min(tokens, model.facts.context or tokens)
    steps = torch.arange(3 * tokens).reshape(3, tokens)
    return ((steps * 7919 + 101) % model.facts.vocabulary).to(model.device)


def record(model: LayeredModel, ids: Tensor) -> Recorded:
    """Run a text, keeping what went into each block and came out, and which modules ran behind them."""
    recorded = Recorded(torch.empty(0))
    with ExitStack() as stack:
        for block in model.blocks:
            stack.callback(block.register_forward_pre_hook(_keep_call(recorded), with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(_keep_output(recorded)).remove)
        for module in neighbours_of_blocks(model.module, model.structure.blocks_path):
            stack.enter_context(on_output(module, _keep_module(recorded, module, model.n_layers)))
        recorded.logits = model.logits(ids)
    if not bool(recorded.logits.isfinite().all()):
        raise refusal(
            model,
            "logits are not finite",
            f"NaN or infinity in {model.facts.dtype}",
            "finite logits",
            "--dtype float32",
        )
    return recorded


def _keep_call(recorded: Recorded) -> Callable[..., None]:
    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states = input_of(args, kwargs).clone()
        recorded.calls.append(with_input(args, kwargs, states))

    return keep


def _keep_output(recorded: Recorded) -> Callable[..., None]:
    def keep(_: nn.Module, __: Any, output: Any) -> None:
        recorded.outputs.append(first_of(output).clone())

    return keep


def _keep_module(recorded: Recorded, module: nn.Module, n_layers: int) -> Callable[[Tensor], None]:
    def keep(_: Tensor) -> None:
        if len(recorded.outputs) == n_layers:
            recorded.after.append(module)

    return keep


def moved(value: Any, place: str | torch.dtype) -> Any:
    """Arguments of a call on another device, or their floating-point tensors in another type."""
    if isinstance(value, Tensor):
        return value.to(place) if isinstance(place, str) or value.is_floating_point() else value
    if isinstance(value, tuple | list):
        return type(value)(moved(entry, place) for entry in value)
    if isinstance(value, dict):
        return {key: moved(entry, place) for key, entry in value.items()}
    return value
