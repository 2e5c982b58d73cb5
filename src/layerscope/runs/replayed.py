"""A recorded run gone on with from any depth, its blocks in any order.

What a block was called with beside the residual stream (positions, masks) is kept from one whole forward
pass; so a run that differs from it only from some depth on needs only the blocks from there. The load
check has shown that blocks called one by one give the model's own logits; where it could not, this is
refused by name. Blocks keep their own arguments wherever they stand, so a block with a window has its
window also in another place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from layerscope.models.hooks import first_of, input_of, on_output, with_input
from layerscope.models.layered import LayeredModel
from layerscope.runs.reading import as_batch

Call = tuple[tuple[Any, ...], dict[str, Any]]


class ReplayedRun:
    """One text, run once and open to be continued.

    Attributes:
        states: the residual stream at every depth [depth token width], in the model's dtype.
    """

    def __init__(self, model: LayeredModel, ids: Sequence[int]) -> None:
        """Run the text.

        Raises:
            LayerscopeError: the load check found that blocks called one by one do not give this model's logits.
        """
        model.need("unembed")
        self.model = model
        self._calls: list[Call] = []
        with _kept_calls(model.blocks, self._calls):
            last: list[Tensor] = []
            with on_output(model.blocks[-1], lambda stream: last.append(stream.detach().clone())):
                model.logits(as_batch(ids), last=True)
        inputs = [input_of(*call) for call in self._calls]
        self.states = torch.cat([*inputs, last[0]])

    @torch.no_grad()
    def onwards(
        self, state: Float[Tensor, "token width"], blocks: Sequence[int]
    ) -> Float[Tensor, "token width"]:
        """The state after the given blocks, in that order, from this state."""
        stream = state[None].clone()  # a block may write into what it is given
        for layer in blocks:
            stream = self.block(layer, stream)
        return stream[0]

    @torch.no_grad()
    def block(self, layer: int, stream: Float[Tensor, "one token width"]) -> Float[Tensor, "one token width"]:
        """What one block makes of a residual stream."""
        args, kwargs = with_input(*self._calls[layer], stream)
        return first_of(self.model.blocks[layer](*args, **kwargs))

    def logits(self, state: Float[Tensor, "token width"]) -> Float[Tensor, "token vocabulary"]:
        """Final norm, unembedding, soft cap and scale."""
        return self.model.unembed(state)


@contextmanager
def _kept_calls(blocks: Sequence[nn.Module], calls: list[Call]) -> Iterator[None]:
    """Keep what every block is called with."""

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(with_input(args, kwargs, input_of(args, kwargs).detach().clone()))

    handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def adding_instead(
    model: LayeredModel, layer: int, kind: str, vector: Float[Tensor, "width"], *, first_position: int
) -> Iterator[None]:
    """Let the attention or the MLP of a block add one fixed vector, whatever it reads.

    Args:
        model: the model.
        layer: the block.
        kind: "attention" or "mlp".
        vector: what is added, in units of the residual stream.
        first_position: positions before this one keep what they would add.
    """
    addition = model.additions[layer]
    name = None if addition is None else getattr(addition, kind)
    assert addition is not None
    assert name is not None
    replaced = _replacing(vector / addition.multiplier, first_position)
    with on_output(model.blocks[layer].get_submodule(name), replaced):
        yield


def _replacing(vector: Tensor, first_position: int) -> Callable[[Tensor], Tensor]:
    def replace(output: Tensor) -> Tensor:
        tokens = output.reshape(-1, output.shape[-1]).clone()  # one text, flat or as a batch of one
        tokens[first_position:] = vector.to(output)
        return tokens.reshape(output.shape)

    return replace
