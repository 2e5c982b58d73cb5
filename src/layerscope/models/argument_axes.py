"""Try a model on a text, its beginning, and the text with another start, to see what its blocks are given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from layerscope.models.arguments import Axes, Call, axes_of_blocks
from layerscope.models.attention import AttentionCall, Replacement, attend, replaced, without_repeats
from layerscope.models.hooks import at_depth
from layerscope.models.layered import LayeredModel


def axes_of_model(model: LayeredModel, ids: Tensor) -> tuple[Axes, ...]:
    """The axis along which each argument of each block follows the positions.

    Args:
        model: a model whose attention can be watched.
        ids: one text [1 token].

    Raises:
        NotUnderstoodError: an argument that cannot be cut to other positions.
    """
    tokens = ids.shape[1]
    whole, masks = _calls(model, ids)
    beginning, _ = _calls(model, ids[:, : tokens - 1])
    changed, _ = _calls(model, ids, lambda stream: stream * 1.5 + 1)
    return axes_of_blocks(
        whole,
        beginning,
        [masks.get(layer) for layer in range(model.n_layers)],
        changed,
        (tokens, tokens - 1),
    )


def _calls(
    model: LayeredModel, ids: Tensor, change: Callable[[Tensor], Tensor] | None = None
) -> tuple[list[Call], dict[int, Tensor | None]]:
    """Arguments of every block, and what its attention added to the scores."""
    calls: list[Call] = []
    masks: dict[int, Tensor | None] = {}

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((args, kwargs))

    def keeper(layer: int) -> Replacement:
        def compute(call: AttentionCall) -> Tensor:
            masks[layer] = None if call.mask is None else without_repeats(call.mask[..., : call.k.shape[2]])
            return attend(call).head_out

        return compute

    modules = enumerate(model.attention_modules)
    with ExitStack() as stack:
        stack.enter_context(at_depth(model, {} if change is None else {0: change}))
        for block in model.blocks:
            stack.callback(block.register_forward_pre_hook(keep, with_kwargs=True).remove)
        keepers = {module: keeper(layer) for layer, module in modules if module is not None}
        stack.enter_context(replaced(model.module, keepers))
        model.logits(ids, last=True)
    return calls, masks
