"""The residual stream together with what attention and MLP of every block add to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from layerscope.models.fused import fused_activations
from layerscope.models.hooks import at_depth, on_output
from layerscope.models.layered import LayeredModel


@dataclass(frozen=True, eq=False)
class Contributions:
    """States at every depth and the vectors that were added between them, in float32.

    Attributes:
        states: the residual stream of the tokens asked for [depth token width].
        attention: what the attention of each block added [layer token width]; NaN in a block that adds no
            such vector, or whose vectors the load check could not find.
        mlp: likewise.
        logits: of the token after the last one of each text [text vocabulary].
    """

    states: Float[Tensor, "depth token width"]
    attention: Float[Tensor, "layer token width"]
    mlp: Float[Tensor, "layer token width"]
    logits: Float[Tensor, "text vocabulary"]


def read_contributions(model: LayeredModel, ids: Sequence[int]) -> Contributions:
    """All tokens of one text, by one forward pass without the unembedding of all but its last token."""
    return _read(model, torch.tensor([list(ids)]), slice(None), additions=True)


def read_last_tokens(model: LayeredModel, texts: Sequence[Sequence[int]]) -> Contributions:
    """The last token of each of some texts of equal length, by one forward pass of all of them."""
    return _read(model, torch.tensor([list(ids) for ids in texts]), slice(-1, None), additions=True)


def read_states_at(
    model: LayeredModel, texts: Sequence[Sequence[int]], positions: Sequence[int]
) -> tuple[Float[Tensor, "depth text_position width"], Float[Tensor, "text vocabulary"]]:
    """States of some positions of texts of equal length, text by text, and the logits after each text."""
    found = _read(model, torch.tensor([list(ids) for ids in texts]), list(positions), additions=False)
    return found.states, found.logits


def _read(
    model: LayeredModel, batch: Tensor, positions: slice | list[int], *, additions: bool
) -> Contributions:
    rows, n = batch.shape[0] * batch[0, positions].numel(), model.n_layers
    shape, pick = (rows, model.facts.width), _Pick(batch.shape, positions)
    states = torch.empty((n + 1, *shape), device=model.device)
    kinds = ("attention", "mlp") if additions else ()
    added = {kind: torch.full((n, *shape), torch.nan, device=model.device) for kind in kinds}
    with ExitStack() as stack:
        keep = {depth: pick.into(states[depth]) for depth in range(n + 1)}
        stack.enter_context(at_depth(model, keep))
        for layer, addition in enumerate(model.additions if additions else ()):
            for kind, vectors in added.items():
                name = None if addition is None else getattr(addition, kind)
                if addition is not None and name is not None:
                    module = model.blocks[layer].get_submodule(name)
                    stack.enter_context(on_output(module, pick.into(vectors[layer], addition.multiplier)))
        stack.enter_context(fused_activations(model.module))
        logits = model.logits(batch, last=True)[:, -1].float()
    nothing = states[:0]
    return Contributions(states, added.get("attention", nothing), added.get("mlp", nothing), logits)


@dataclass(frozen=True)
class _Pick:
    """Which rows of a module's output are kept, some modules giving their tokens as one flat row (OPT's MLP)."""

    batch: torch.Size
    positions: slice | list[int]

    def into(self, rows: Tensor, multiplier: float = 1.0) -> Callable[[Tensor], None]:
        def keep(tensor: Tensor) -> None:
            tokens = tensor.detach().reshape(*self.batch, -1)[:, self.positions]
            rows.copy_(tokens.reshape(rows.shape))
            if multiplier != 1.0:
                rows.mul_(multiplier)

        return keep
