"""What the model would say at every depth of every position: the most probable tokens by logit lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from layerscope.models.layered import LayeredModel
from layerscope.runs.contributions import read_states_at
from layerscope.runs.lens import UNKNOWN, refuse_another_end, stream_dtype
from layerscope.runs.predictions import Predictions

TOP = 6
"""Most probable tokens that are kept of each cell."""
_LOGITS_AT_ONCE = 2**24
"""Bound on logits that are held together: those of some depths and positions over the whole vocabulary."""


@dataclass(frozen=True, eq=False)
class LensTable:
    """The most probable tokens at every depth of some positions of a text, and where one token stands among all.

    Attributes:
        tokens: ids, the most probable first [token depth place].
        probability: theirs [token depth place].
        target: the id that is followed through depth: the model's own most probable token, or the answer [token].
        target_probability: its probability [token depth].
        rank: its rank, 1 for the most probable [token depth].
    """

    tokens: Int[Tensor, "token depth place"]
    probability: Float[Tensor, "token depth place"]
    target: Int[Tensor, "token"]
    target_probability: Float[Tensor, "token depth"]
    rank: Int[Tensor, "token depth"]


@torch.no_grad()
def read_lens_table(
    model: LayeredModel, ids: Sequence[int], positions: Sequence[int], *, answer: int = UNKNOWN
) -> LensTable:
    """Read positions of a text at every depth through the model's own final norm and unembedding.

    Args:
        model: the model.
        ids: the text.
        positions: which of its tokens, in rising order, the last one among them.
        answer: what is followed at the last token; UNKNOWN for the model's own most probable token.

    Raises:
        LayerscopeError: the load check refused the unembedding on this model, or the last lens does not give the
            model's own logits on this text.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    model.need("unembed")
    states, logits = read_states_at(model, [ids], positions)
    refuse_another_end(model, states[-1, -1:], logits)
    states = states.to(stream_dtype(model))
    target = Predictions(model, states=states[-1:]).read(top=True).top
    if answer != UNKNOWN:
        target[-1] = answer
    depths, tokens = states.shape[:2]
    followed = target.repeat(depths)
    rows, parts = states.flatten(0, 1), []
    at_once = max(1, _LOGITS_AT_ONCE // model.facts.vocabulary)
    for start in range(0, len(rows), at_once):
        some = slice(start, start + at_once)
        parts.append(_cells(model, rows[some], followed[some]))
    found = [torch.cat(part).reshape(depths, tokens, -1).transpose(0, 1) for part in zip(*parts, strict=True)]
    top, probability, of_target, rank = found
    return LensTable(top, probability, target, of_target[..., 0], rank[..., 0])


def _cells(model: LayeredModel, states: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top tokens and their probabilities, then probability and rank of the target, of some depths and positions."""
    logits = model.unembed(states).float()
    read = Predictions(model, logits=logits[None]).read(tokens=target[:, None], rank=True)
    top = logits.topk(min(TOP, logits.shape[-1]), dim=-1)
    probability = read.normaliser.log_probability(top.values).exp()
    return top.indices, probability, read.log_probability.exp(), read.rank
