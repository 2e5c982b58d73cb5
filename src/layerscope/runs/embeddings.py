"""What a token's embedding contributes to the residual stream, before positions are added."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from layerscope.models.hooks import on_input, on_output
from layerscope.models.layered import LayeredModel
from layerscope.runs.reading import as_batch


class _SeenEnough(Exception):  # noqa: N818 - not an error
    """Ends a forward pass once what was wanted has been seen."""


def token_contributions(model: LayeredModel, ids: Sequence[int]) -> Float[Tensor, "token width"]:
    """Each token's contribution to resid_pre 0: after scaling and projection, before positions.

    Told apart from positions by trying: where equal tokens at different places give equal states, no
    position was added and the state is the contribution (Llama, Gemma, BLOOM); elsewhere it is the
    state less the state of an all-zero embedding (GPT-2, OPT with its projection).
    """
    states = _first_states(model, ids)
    twice = _first_states(model, [ids[0], ids[0]])
    if torch.equal(twice[0], twice[1]):
        return states
    return states - _first_states(model, ids, silenced=True)


@torch.no_grad()
def _first_states(model: LayeredModel, ids: Sequence[int], *, silenced: bool = False) -> Tensor:
    model.need("resid_pre")
    seen: list[Tensor] = []

    def stop(stream: Tensor) -> None:
        seen.append(stream[0].detach().float().clone())
        raise _SeenEnough

    def silence(embedded: Tensor) -> Tensor | None:
        return torch.zeros_like(embedded) if silenced else None

    with on_output(model.module.get_input_embeddings(), silence), on_input(model.blocks[0], stop):
        try:
            model.logits(as_batch(ids), last=True)
        except _SeenEnough:
            return seen[0]
    raise AssertionError("the forward pass ended without reaching block 0")


@torch.no_grad()
def states_of_tokens_alone(
    model: LayeredModel, *, tokens_per_pass: int = 4096
) -> Float[Tensor, "token width"]:
    """The state in which the first block leaves each token of the vocabulary, where it is the whole text.

    What attention and MLP of the first block make of the token itself: sometimes called an extended
    embedding, since models with tied embeddings write over theirs there.

    Source: McDougall et al. 2023, "Copy suppression: comprehensively understanding an attention head".
    """
    model.need("resid_post")
    seen: list[Tensor] = []

    def stop(stream: Tensor) -> None:
        seen.append(stream.detach().reshape(-1, stream.shape[-1]).float())
        raise _SeenEnough

    ids = torch.arange(len(model.module.get_input_embeddings().weight))
    with on_output(model.blocks[0], stop):
        for some in torch.split(ids, tokens_per_pass):
            try:
                model.logits(some[:, None], last=True)
            except _SeenEnough:
                continue
            raise AssertionError("the forward pass ended without reaching block 0")
    return torch.cat(seen)
