"""How long is what a head writes when it takes one key alone?

The length of (x_j W_V + b_V) W_O^h: the value as it enters the product, through the head's own rows of the
output projection (`models.head_outputs`). Where something stands between (a gate, a norm) there is none,
and the length of the value itself is used; `source` says which.

Source: Kobayashi et al. 2020, "Attention is not only a weight: analyzing Transformers with vector norms".
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from layerscope.maths.similarity import norm
from layerscope.models.head_outputs import head_outputs
from layerscope.models.layered import LayeredModel

WRITTEN, VALUE = "what the head writes", "the value itself"


class ValueLengths:
    """Lengths of what heads write, for all layers of a model as its weights are now."""

    def __init__(self, model: LayeredModel) -> None:
        self._outputs = head_outputs(model)
        self._triangles: dict[int, Tensor] = {}

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that attend."""
        return tuple(self._outputs)

    def source(self, layer: int) -> str:
        """What the lengths of a layer are lengths of."""
        return VALUE if self._outputs[layer] is None else WRITTEN

    def of(
        self, layer: int, values: Float[Tensor, "text kv_head token head_width"], heads: int
    ) -> Float[Tensor, "text head token"]:
        """Length for each query head and key, in float32."""
        values = values.float().repeat_interleave(heads // values.shape[1], dim=1)
        output = self._outputs[layer]
        if output is None:
            return norm(values)
        if layer not in self._triangles:
            self._triangles[layer] = _triangles(output, heads)
        return norm(values @ self._triangles[layer])


def _triangles(weight: Float[Tensor, "heads_width width"], heads: int) -> Float[Tensor, "head here there"]:
    """R_h with ‖v R_h‖ = ‖v W_O^h‖ for every v: square, where W_O^h is as wide as the model.

    With (W_O^h)ᵀ = Q R and Q's columns orthonormal, ‖v W_O^h‖ = ‖Q R vᵀ‖ = ‖R vᵀ‖. Unlike W_O W_Oᵀ, this
    squares nothing, so small lengths keep their digits.
    """
    by_head = weight.float().reshape(heads, -1, weight.shape[-1])
    return torch.linalg.qr(by_head.transpose(1, 2), mode="r").R.transpose(1, 2)
