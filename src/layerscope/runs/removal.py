"""Run a model without one direction that a matrix writes: M becomes M − σ u vᵀ, while a `with` lasts.

What a matrix writes along its singular direction v is its output's part along v, so taking that part out of
the output is the same edit, and no weight is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor

from layerscope.models.hooks import on_input, on_output
from layerscope.models.layered import LayeredModel
from layerscope.models.mlp_weights import MlpWeights
from layerscope.models.projections import HeadWeights


@contextmanager
def without_head_direction(
    model: LayeredModel, layer: int, heads: HeadWeights, head: int, direction: Tensor
) -> Iterator[None]:
    """Let a head no longer write along a direction [width]: its OV becomes OV − (OV v) vᵀ.

    For a singular direction that is σ u vᵀ less. Where a norm stands behind the output projection, the
    direction is taken out in front of it.
    """
    given: list[Tensor] = []
    size = heads.output.shape[1]
    direction = direction / direction.norm()
    along = (heads.output[head] @ direction.to(heads.output)) / _factor(model, layer)

    def keep(head_outputs: Tensor) -> None:
        given.append(head_outputs[..., head * size : (head + 1) * size].detach())

    def less(output: Tensor) -> Tensor:
        part = given.pop().to(along) @ along
        return output - (part[..., None] * direction.to(along)).to(output)

    with ExitStack() as stack:
        stack.enter_context(on_input(heads.output_map, keep))
        stack.enter_context(on_output(heads.output_map, less))
        yield


@contextmanager
def without_mlp_direction(
    model: LayeredModel, layer: int, mlp: MlpWeights, direction: Tensor
) -> Iterator[None]:
    """Let an MLP no longer write along a direction [width]; its bias stays. See `without_head_direction`."""
    if mlp.output_map is None:
        raise ValueError("experts share one output map: there is no module to edit")
    direction = direction / direction.norm()
    bias = mlp.write_bias / _factor(model, layer)

    def less(output: Tensor) -> Tensor:
        part = (output.to(bias) - bias) @ direction.to(bias)
        return output - (part[..., None] * direction.to(bias)).to(output)

    with on_output(mlp.output_map, less):
        yield


def _factor(model: LayeredModel, layer: int) -> float:
    addition = model.additions[layer]
    return addition.multiplier if addition else 1.0
