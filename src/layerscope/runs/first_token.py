"""How well a model reads plain text behind a token that stands first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float

from layerscope.models.layered import LayeredModel
from layerscope.runs.reading import as_batch

_TOKENS_AT_ONCE = 256  # logits of a large vocabulary stay below a few hundred megabytes


@torch.no_grad()
def loss_behind(
    model: LayeredModel, first: int | None, texts: Sequence[Sequence[int]]
) -> Float[torch.Tensor, "text"]:
    """Mean loss of each text's tokens from its second on, in nats per token.

    The same tokens are asked for whatever stands first: the text's first one, which nothing could predict
    where nothing stands before it, is left out.

    Args:
        model: the model.
        first: id of the token that stands first, or None.
        texts: token ids, all equally long, at least two.
    """
    front = () if first is None else (first,)
    at_once = max(1, _TOKENS_AT_ONCE // (len(texts[0]) + len(front)))
    losses = []
    for start in range(0, len(texts), at_once):
        ids = torch.cat([as_batch((*front, *text)) for text in texts[start : start + at_once]])
        scores = model.logits(ids)[:, len(front) : -1].float().log_softmax(-1).cpu()
        asked = ids[:, len(front) + 1 :, None].to(scores.device)
        losses.append(-scores.gather(-1, asked)[..., 0].mean(-1))
    return torch.cat(losses)
