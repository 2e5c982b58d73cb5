"""Patched runs as a loop of whole forward passes under the model's own attention: what the sweep compares with.

Shares no code with Layerscope: its own way to the layers, its own hooks, one run and one edit at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def layers_of(module: nn.Module) -> list[nn.Module]:
    """The decoder's layers: the longest run of like modules that a forward pass of text calls, by their weights."""
    count = module.config.get_text_config(decoder=True).num_hidden_layers
    called: set[nn.Module] = set()
    handles = [one.register_forward_hook(lambda m, _, __: called.add(m) or None) for one in module.modules()]
    forward(module, [1, 2, 3])
    for handle in handles:
        handle.remove()
    lists = [
        one
        for one in module.modules()
        if isinstance(one, nn.ModuleList) and len(one) == count and all(layer in called for layer in one)
    ]
    return list(max(lists, key=lambda one: sum(p.numel() for p in one.parameters())))


@torch.no_grad()
def forward(module: Any, ids: Sequence[int], **more: Any) -> Any:
    """One whole forward pass, without a cache."""
    tokens = torch.tensor([list(ids)])
    return module(tokens, attention_mask=torch.ones_like(tokens), use_cache=False, **more)


def states(module: Any, ids: Sequence[int], **more: Any) -> list[Tensor]:
    """The stream before each layer and behind the last, as the layers are handed it."""
    layers, found = layers_of(module), []
    handles = [layer.register_forward_pre_hook(_taker(found), with_kwargs=True) for layer in layers]
    handles.append(layers[-1].register_forward_hook(lambda _, __, out: found.append(_first(out).clone())))
    try:
        forward(module, ids, **more)
    finally:
        for handle in handles:
            handle.remove()
    return found


def patched(module: Any, ids: Sequence[int], values: Tensor, depth: int, token: int) -> Tensor:
    """Probabilities behind the last token, with one state [width] put in."""
    layers = layers_of(module)

    def put(stream: Tensor) -> Tensor:
        stream = stream.clone()
        stream[0, token] = values
        return stream

    if depth < len(layers):
        handle = layers[depth].register_forward_pre_hook(_editor(put), with_kwargs=True)
    else:
        handle = layers[-1].register_forward_hook(
            lambda _, __, out: put(out) if isinstance(out, Tensor) else (put(out[0]), *out[1:])
        )
    try:
        return probabilities(forward(module, ids).logits)
    finally:
        handle.remove()


def probabilities(logits: Tensor) -> Tensor:
    """Of the token that follows the last one."""
    return logits[0, -1].float().softmax(-1)


def own_attention(module: Any, ids: Sequence[int]) -> list[Tensor] | None:
    """Patterns [head query key] of every layer as the model itself gives them, or None if it gives none."""
    before = module.config._attn_implementation
    try:
        module.set_attn_implementation("eager")
        given = getattr(forward(module, ids, output_attentions=True), "attentions", None)
    except (ValueError, TypeError, RuntimeError, NotImplementedError, AttributeError, KeyError, IndexError):
        return None
    finally:
        module.set_attn_implementation(before)
    if not given or any(not isinstance(one, Tensor) or one.dim() != 4 for one in given):
        return None
    return [one[0].float() for one in given]


def _first(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def _taker(into: list[Tensor]) -> Callable[..., None]:
    def take(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        into.append((args[0] if args else kwargs["hidden_states"]).clone())

    return take


def _editor(edit: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": edit(kwargs["hidden_states"])}

    return hook
