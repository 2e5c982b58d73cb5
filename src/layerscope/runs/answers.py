"""What a model says next, and how sure it is of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerscope.models.layered import LayeredModel
from layerscope.runs.reading import as_batch


@dataclass(frozen=True)
class Answer:
    """One token as the continuation of a text.

    Attributes:
        token: the id that was asked about, or the model's own top-1 where none was.
        log_probability: of that token, in nats.
        rank: 1 for the most probable token of the vocabulary; ties count in the token's favour.
        top: id of the most probable token.
        top_log_probability: of that one, in nats.
        rival: id of the most probable token other than `token`.
    """

    token: int
    log_probability: float
    rank: int
    top: int
    top_log_probability: float
    rival: int = -1


def answer_of(model: LayeredModel, ids: Sequence[int], token: int | None) -> Answer:
    """The clean run of a prompt: how probable is `token` (None: the model's own top-1) as the next one?"""
    scores = model.logits(as_batch(ids), last=True)[0, -1].float().log_softmax(-1)
    top = int(scores.argmax())
    asked = top if token is None else token
    return Answer(
        token=asked,
        log_probability=float(scores[asked]),
        rank=int((scores > scores[asked]).sum()) + 1,
        top=top,
        top_log_probability=float(scores[top]),
        rival=next(int(token) for token in scores.topk(2).indices if int(token) != asked),
    )
