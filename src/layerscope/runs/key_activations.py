"""Show the activations of MLP keys as a model computes them, keeping none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from layerscope.models.hooks import on_input, on_output
from layerscope.models.layered import LayeredModel
from layerscope.models.mlp_keys import mlp_keys

See = Callable[[Tensor], None]
"""Is shown a tensor [batch token key], or [batch token width]; keeps what it wants of it."""


_LOGITS = 2**25  # held at one time: 128 MB


class _SeenEnough(Exception):  # noqa: N818 - not an error
    """Ends a forward pass once the last wanted block has been seen."""


@torch.no_grad()
def show_key_activations(
    model: LayeredModel,
    ids: Int[Tensor, "batch token"],
    see: Mapping[int, See],
    outputs: Mapping[int, See] | None = None,
) -> None:
    """One whole forward pass up to the last wanted block, showing what its MLPs' keys do.

    Nothing is stored here: at any time the activations of one block exist, as in the model's own pass.

    Args:
        model: the model.
        ids: rows of equal length.
        see: by layer, who is shown the keys' activations [batch token key]: what comes into the output
            projection, in the model's own type.
        outputs: by layer, who is shown what the output projection gives [batch token width].

    Raises:
        LayerscopeError: a block without such keys, see `models.mlp_keys`.
    """
    keys, outputs = mlp_keys(model), outputs or {}
    last = max([*see, *outputs])

    with ExitStack() as stack:
        for layer, shown in see.items():
            stack.enter_context(on_input(keys[layer].projection, _shaped(shown, ids)))
        for layer, shown in outputs.items():
            stack.enter_context(on_output(keys[layer].projection, _shaped(shown, ids)))
        stack.enter_context(on_output(model.blocks[last], _stop))
        try:
            model.logits(ids, last=True)
        except _SeenEnough:
            return
    raise AssertionError("the forward pass ended without reaching the block")


def _stop(_: Tensor) -> None:
    raise _SeenEnough


def _shaped(see: See, ids: Tensor) -> See:
    """Some modules see their tokens as one flat row (OPT's MLP)."""
    return lambda states: see(states.detach().reshape(*ids.shape, states.shape[-1]))


@torch.no_grad()
def top_tokens(model: LayeredModel, vectors: Float[Tensor, "vector width"]) -> Int[Tensor, "vector"]:
    """The token that each vector raises most, through the final norm and the unembedding; on the CPU.

    Logits exist for some vectors at a time only, whatever the vocabulary's size.

    Raises:
        LayerscopeError: this model's unembedding cannot be rebuilt.
    """
    dtype = next(model.module.parameters()).dtype
    at_once = max(1, _LOGITS // model.facts.vocabulary)
    pieces = [
        model.unembed(vectors[start : start + at_once].to(model.device, dtype)).float().argmax(-1).cpu()
        for start in range(0, len(vectors), at_once)
    ]
    return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.long)
