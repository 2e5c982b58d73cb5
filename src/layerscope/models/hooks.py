"""Hooks on a model's own modules, never longer than a `with`.

They live in this room, below `runs`, because the load check needs them too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

Change = Callable[[Tensor], Tensor | None]
"""Sees a tensor [batch token width]; returns its replacement, or None to leave it."""


@contextmanager
def on_input(module: nn.Module, change: Change) -> Iterator[None]:
    """Show a block's input to `change`, which may replace it."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        replacement = change(input_of(args, kwargs))
        return None if replacement is None else with_input(args, kwargs, replacement)

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def on_output(module: nn.Module, change: Change) -> Iterator[None]:
    """Show a module's output (the first, where there are several) to `change`, which may replace it."""

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        replacement = change(first_of(output))
        return None if replacement is None else with_first(output, replacement)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def at_depth(model: LayeredModel, changes: Mapping[int, Change]) -> Iterator[None]:
    """Show the residual stream at the given depths (0 .. n_layers) to their changes.

    Depth d is the input of block d; depth n_layers is the output of the last block.

    Raises:
        LayerscopeError: what this model's blocks hand on is no state for each token.
    """
    if changes:
        model.need("resid_pre")
    blocks = model.blocks
    with ExitStack() as stack:
        for depth, change in changes.items():
            last = depth == len(blocks)
            stack.enter_context(on_output(blocks[-1], change) if last else on_input(blocks[depth], change))
        yield


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody watches or edits a module or one inside it: what it gives is not its weights' alone."""
    return any(one._forward_hooks or one._forward_pre_hooks for one in module.modules())


def input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The residual stream among a block's arguments."""
    return args[0] if args else kwargs["hidden_states"]


def with_input(args: tuple[Any, ...], kwargs: dict[str, Any], states: Tensor) -> tuple[Any, dict[str, Any]]:
    """A block's arguments with another residual stream."""
    return ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})


def first_of(output: Any) -> Tensor:
    """The tensor that matters among a module's outputs."""
    return output[0] if isinstance(output, tuple | list) else output


def with_first(output: Any, replacement: Tensor) -> Any:
    """A module's outputs with another first tensor."""
    if isinstance(output, torch.Tensor):
        return replacement
    return (replacement, *output[1:])
