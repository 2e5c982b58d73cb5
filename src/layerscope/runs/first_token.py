"""How well a model reads plain text behind a token that stands first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float

from layerscope.models.layered import LayeredModel

_TOKENS_AT_ONCE = 256  # logits of a large vocabulary stay below a few hundred megabytes


@torch.no_grad()
def loss_behind(
    model: LayeredModel, firsts: Sequence[int | None], texts: Sequence[Sequence[int]]
) -> Float[torch.Tensor, "first text"]:
    """Mean loss of each text's tokens from its second on, in nats per token, behind each of some tokens.

    The same tokens are asked for whatever stands first: the text's first one, which nothing could predict
    where nothing stands before it, is left out.

    Args:
        model: the model.
        firsts: ids of tokens that stand first, or None for nothing.
        texts: token ids, all equally long, at least two.
    """
    found: dict[int | None, torch.Tensor] = {}
    some = [first for first in firsts if first is not None]
    for group in ([None] if None in firsts else [], some):
        fronts = [() if first is None else (first,) for first in group]
        if group:
            rows = [(*front, *text) for front in fronts for text in texts]
            found |= zip(group, _losses(model, rows, len(fronts[0])).view(len(group), -1), strict=True)
    return torch.stack([found[first] for first in firsts])


def _losses(model: LayeredModel, rows: Sequence[Sequence[int]], front: int) -> Float[torch.Tensor, "row"]:
    """Mean loss of each row's tokens from the second on behind so many in front."""
    losses = []
    at_once = max(1, _TOKENS_AT_ONCE // len(rows[0]))
    for start in range(0, len(rows), at_once):
        ids = torch.tensor(rows[start : start + at_once])
        scores = model.logits(ids)[:, front:-1].float().log_softmax(-1).cpu()
        losses.append(-scores.gather(-1, ids[:, front + 1 :, None])[..., 0].mean(-1))
    return torch.cat(losses)
