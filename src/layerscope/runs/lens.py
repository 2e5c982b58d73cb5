"""What the model would say if it stopped at a depth: states through its own final norm and unembedding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from layerscope.errors import LayerscopeError
from layerscope.maths.distributions import Distribution
from layerscope.models.layered import LayeredModel
from layerscope.models.rounding import close
from layerscope.runs.contributions import read_states_at
from layerscope.runs.predictions import Predictions, Reference
from layerscope.runs.tuned_lens import TunedLens

_LOGITS_AT_ONCE = 2**25
"""Bound on the final logits that are held together: their tokens go through the unembedding together at every depth."""
UNKNOWN = -1
"""An id that stands for no token."""


@dataclass(frozen=True, eq=False)
class LensReading:
    """What is read at every depth of every token asked for; text by text.

    Attributes:
        kl: divergence of the lens from the final distribution, in nats [token depth].
        log_probability: of the answer, in nats [token depth].
        rank: of the answer, 1 for the most probable [token depth].
        other_log_probability: of another answer, the null; NaN where there is none [token depth].
        next_log_probability: of the text's own next token; NaN where there is none [token depth].
        top: the model's own most probable token [token].
        answer: the answer's id: the one given, or `top` [token].
        kl_to_average: divergence from the average final distribution of the other tokens read together: what
            a lens that knows nothing of this token would reach; NaN for a single token [token].
    """

    kl: Float[Tensor, "token depth"]
    log_probability: Float[Tensor, "token depth"]
    rank: Int[Tensor, "token depth"]
    other_log_probability: Float[Tensor, "token depth"]
    next_log_probability: Float[Tensor, "token depth"]
    top: Int[Tensor, "token"]
    answer: Int[Tensor, "token"]
    kl_to_average: Float[Tensor, "token"]


def read_lens(
    model: LayeredModel,
    texts: Sequence[Sequence[int]],
    positions: Sequence[int],
    *,
    answers: Sequence[int] | None = None,
    others: Sequence[int] | None = None,
    lenses: Sequence[TunedLens | None] = (None,),
) -> list[LensReading]:
    """Read some positions of texts of equal length at every depth, through each lens.

    Args:
        model: the model.
        texts: token ids.
        positions: which tokens of each text.
        answers: one id for each text and position; None, or UNKNOWN, for the model's own most probable
            token.
        others: ids whose log-probability is the null; None for the answer of the token that stands half the
            way round among those read together.
        lenses: None is the logit lens; a tuned lens translates first.

    Raises:
        LayerscopeError: the load check refused the unembedding on this model, or the last lens does not
            give the model's own logits on these texts.
    """
    model.need("unembed")
    last = len(texts[0]) - 1
    kept = list(positions) if last in positions else [*positions, last]
    states, logits = read_states_at(model, texts, kept)
    states = states.reshape(len(states), len(texts), len(kept), -1)
    refuse_another_end(model, states[-1, :, kept.index(last)], logits)
    states = states[:, :, : len(positions)].flatten(1, 2)
    asked = torch.full((states.shape[1],), UNKNOWN) if answers is None else torch.tensor(list(answers))
    following = torch.tensor([_following(ids, position) for ids in texts for position in positions])
    size = max(2, _LOGITS_AT_ONCE // model.facts.vocabulary)
    chunks = _slices(states.shape[1], size)
    parts = [
        _chunk(
            model,
            states[:, chunk],
            asked[chunk],
            None if others is None else others[chunk],
            following[chunk],
            lenses,
        )
        for chunk in chunks
    ]
    return [_joined([part[lens] for part in parts]) for lens in range(len(lenses))]


def _following(ids: Sequence[int], position: int) -> int:
    return ids[position + 1] if position + 1 < len(ids) else UNKNOWN


def refuse_another_end(model: LayeredModel, states: Tensor, logits: Tensor) -> None:
    """Refuse a lens that does not give, of the last states [text width], the model's own logits [text vocabulary]."""
    again = model.unembed(states.to(stream_dtype(model))).float()
    if not close(again.to(stream_dtype(model)), logits.to(stream_dtype(model))):
        raise LayerscopeError(
            "the last lens is not what this model says",
            found=f"logits that differ by up to {float((again - logits).abs().max()):.2g}",
            expected="the model's own logits from its final norm, unembedding, soft cap and scale",
            hint="layerscope selftest --model MODEL   (or --dtype float32)",
        )


def stream_dtype(model: LayeredModel) -> torch.dtype:
    """The type of numbers in which states reach the final norm."""
    return next(model.blocks[-1].parameters()).dtype


@torch.no_grad()
def _chunk(
    model: LayeredModel,
    states: Float[Tensor, "depth token width"],
    answers: Tensor,
    others: Sequence[int] | None,
    following: Tensor,
    lenses: Sequence[TunedLens | None],
) -> list[LensReading]:
    dtype = stream_dtype(model)
    logits = model.unembed(states[-1].to(dtype)).float()
    final = Reference(model, logits)
    top = logits.argmax(-1)
    answer = torch.where(answers.to(top) == UNKNOWN, top, answers.to(top))
    half = len(answer) // 2
    other = (
        (answer.roll(half) if half else torch.full_like(answer, UNKNOWN))
        if others is None
        else torch.tensor(others)
    )
    wanted = torch.stack([answer, other.to(top), following.to(top)], dim=1)
    average, rows = _kl_to_average(final.own), torch.arange(len(top))
    end = Predictions(model, logits=logits[None]).read(tokens=wanted, rank=True)
    at_the_end = (torch.zeros_like(average), end.log_probability.T, end.rank)
    readings = []
    for lens in lenses:
        columns = []
        for depth, state in enumerate(states[:-1]):
            seen = state if lens is None else lens.translate(depth, state)
            said = Predictions(model, states=seen.to(dtype)[None])
            read = said.read(tokens=wanted, rank=True, against=final, rows_of=rows)
            columns.append((read.divergence, read.log_probability.T, read.rank))
        columns.append(at_the_end)
        kl, logs, ranks = (torch.stack(column, dim=-1) for column in zip(*columns, strict=True))
        readings.append(LensReading(kl, logs[0], ranks, logs[1], logs[2], top, answer, average))
    return readings


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _kl_to_average(final: Distribution) -> Float[Tensor, "token"]:
    p = final.probabilities
    if len(p) < 2:
        return torch.full((len(p),), torch.nan, device=p.device)
    others = len(p) - 1
    # Rounding can leave less than nothing where one token alone holds a probability.
    crossed = (p.sum(0) - p).clamp_min_(1e-30 * others).log_().mul_(p).sum(-1) - math.log(others)
    return (final.negative_entropy - crossed).clip(0)


def _joined(parts: Sequence[LensReading]) -> LensReading:
    return LensReading(
        **{one.name: torch.cat([getattr(part, one.name) for part in parts]) for one in fields(LensReading)}
    )
