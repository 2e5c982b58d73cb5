"""How long is what a head writes when it takes one key alone?

The length of (x_j W_V + b_V) W_O^h: the value as it enters the product, through the head's own rows of the
output projection. The projection is found by trying: it is the module inside the attention module that
is given exactly the heads' outputs side by side, and that is linear. Where something stands between
(a gate, a norm) there is none, and the length of the value itself is used; `source` says which.

Source: Kobayashi et al. 2020, "Attention is not only a weight: analyzing Transformers with vector norms".
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from layerscope.maths.similarity import norm
from layerscope.models.attention import Attended, watched
from layerscope.models.check import probe_ids
from layerscope.models.hooks import on_input
from layerscope.models.layered import LayeredModel

WRITTEN, VALUE = "what the head writes", "the value itself"


class ValueLengths:
    """Lengths of what heads write, for all layers of a model as its weights are now."""

    def __init__(self, model: LayeredModel) -> None:
        self._maps = {
            layer: None if projection is None else _triangles(projection, heads)
            for layer, (projection, heads) in _projections(model).items()
        }

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that attend."""
        return tuple(self._maps)

    def source(self, layer: int) -> str:
        """What the lengths of a layer are lengths of."""
        return VALUE if self._maps[layer] is None else WRITTEN

    def of(
        self, layer: int, values: Float[Tensor, "text kv_head token head_width"], heads: int
    ) -> Float[Tensor, "text head token"]:
        """Length for each query head and key, in float32."""
        values = values.float().repeat_interleave(heads // values.shape[1], dim=1)
        triangles = self._maps[layer]
        return norm(values if triangles is None else values @ triangles)


def _triangles(weight: Float[Tensor, "heads_width width"], heads: int) -> Float[Tensor, "head here there"]:
    """R_h with ‖v R_h‖ = ‖v W_O^h‖ for every v: square, where W_O^h is as wide as the model.

    With (W_O^h)ᵀ = Q R and Q's columns orthonormal, ‖v W_O^h‖ = ‖Q R vᵀ‖ = ‖R vᵀ‖. Unlike W_O W_Oᵀ, this
    squares nothing, so small lengths keep their digits.
    """
    by_head = weight.float().reshape(heads, -1, weight.shape[-1])
    return torch.linalg.qr(by_head.transpose(1, 2), mode="r").R.transpose(1, 2)


def _projections(model: LayeredModel) -> dict[int, tuple[Tensor | None, int]]:
    """W_O [heads * head_width, width] of every layer that attends, None where there is none, and its heads."""
    given: dict[nn.Module, Tensor] = {}
    head_out: dict[nn.Module, Tensor] = {}
    attending = {layer: m for layer, m in enumerate(model.attention_modules) if m is not None}

    def keep_heads(module: nn.Module) -> Callable[[Attended], None]:
        def watch(call: Attended) -> None:
            head_out[module] = call.head_out.detach()

        return watch

    def keep_input(module: nn.Module) -> Callable[[Tensor], None]:
        def keep(tensor: Tensor) -> None:
            given[module] = tensor.detach()

        return keep

    with ExitStack() as stack:
        for module in attending.values():
            for inner in module.modules():
                if inner is not module and not list(inner.children()):
                    stack.enter_context(on_input(inner, keep_input(inner)))
        stack.enter_context(watched(model.module, {m: keep_heads(m) for m in attending.values()}))
        model.logits(probe_ids(model), last=True)
    return {
        layer: (_projection(module, given, head_out[module]), head_out[module].shape[1])
        for layer, module in attending.items()
    }


def _projection(module: nn.Module, given: dict[nn.Module, Tensor], head_out: Tensor) -> Tensor | None:
    side_by_side = head_out.transpose(1, 2).flatten(2)
    for inner in module.modules():
        seen = given.get(inner)
        if seen is not None and seen.numel() == side_by_side.numel():
            weight = (
                _linear(inner, seen.shape[-1])
                if torch.equal(seen.reshape(side_by_side.shape), side_by_side)
                else None
            )
            if weight is not None:
                return weight
    return None


def _linear(module: nn.Module, width: int) -> Tensor | None:
    """The matrix that a module multiplies its input by, whatever it adds; None where it is not linear."""
    parameter = next(module.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    probe = torch.randn(4, width, generator=torch.Generator().manual_seed(0)).to(device)
    kind = parameter.dtype if parameter is not None and parameter.is_floating_point() else torch.float32

    def apply(rows: Tensor) -> Tensor:
        return module(rows.to(kind)).float()

    bias = apply(torch.zeros_like(probe[:1]))
    expected = apply(probe) - bias
    weight = getattr(module, "weight", None)
    for candidate in () if weight is None or weight.dim() != 2 else (weight.T, weight):
        if candidate.shape[0] == width and _same(probe @ candidate.float(), expected):
            return candidate.detach()
    whole = apply(torch.eye(width).to(device)) - bias  # quantised weights are not stored as a matrix
    return whole if _same(probe @ whole, expected) else None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= 0.02 * b.abs().max())
