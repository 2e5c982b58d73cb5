"""What stands first before every text of a model: what its tokenizer puts there, or what the model reads best behind.

A special token in front serves many models as a place to rest attention on, and disturbs others: a token that
opens a turn of a chat makes a model expect a chat. Where the tokenizer puts nothing first, each special token
that neither opens nor closes a turn is tried on a few short documents of bundled plain text; the best of them
is then held against nothing on other documents, and stands first only if it lowers their loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from layerscope.jobs.texts import plain_set
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.models.load import load_model
from layerscope.results.remembered import keep, recalled
from layerscope.runs.first_token import loss_behind
from layerscope.text.chat import turn_tokens
from layerscope.text.passages import Passage, load_passages
from layerscope.text.tokens import (
    BosPolicy,
    bare_encoding,
    bos_id,
    put_first_by_itself,
    special_tokens,
    token_text,
    tokenizer_digest,
)

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

_SCREENED, _SCREEN_TOKENS = 4, 8
_DOCUMENTS, _TOKENS = 12, 12
_FEWEST = 6  # documents; an interval over fewer would hold anything
_MOST_CANDIDATES = 64
_METHOD = 1  # a new number where the choice is made in another way: what was kept is then found anew


class Tried(BaseModel):
    """A token that might stand first.

    Attributes:
        text: as its vocabulary writes it; "" for nothing.
        loss: nats per token on the documents that all candidates were tried on.
        difference, low, high: its loss less that of nothing on the other documents, with the 95 % interval
            over documents; None for what was not the best of the candidates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    loss: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class StandsFirst(BaseModel):
    """What stands first before every text, and why.

    Attributes:
        policy: what was asked for.
        text: the token that stands first; None for nothing.
        reason: why, with the losses where they decided.
        best: the token that an instrument takes which needs one to stand first; None where there is none.
        tried: every candidate, nothing among them; empty where none was tried.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: BosPolicy
    text: str | None
    reason: str
    best: str | None = None
    tried: tuple[Tried, ...] = ()

    def used(self, *, needed: bool) -> BosPolicy:
        """The token that stands first, or "never"; `needed` where an instrument cannot do without one."""
        return self.text or (self.best if needed else None) or "never"

    def said(self) -> str:
        """What stands first, and why, in one line."""
        return f"{self.text or 'nothing'} stands first: {self.reason}"

    def said_of_need(self, experiment: str) -> str:
        """What must be known where an instrument takes a token though nothing stands first elsewhere."""
        if self.text is not None or self.best is None:
            return ""
        return (
            f"{experiment} needs a token to stand first and takes {self.best}; before other texts of this model "
            f"nothing stands first: {self.reason}."
        )


def standing_first(model: LayeredModel, policy: BosPolicy = "auto", *, weights: str = "") -> StandsFirst:
    """What stands first before texts of this model.

    An untrained twin reads what its trained model reads.

    Args:
        model: the model.
        policy: "auto", "always", "never" or a token.
        weights: digest of the weights, where it is known already.

    Raises:
        LayerscopeError: no such token, or a tokenizer that puts several first.
    """
    tokenizer = model.tokenizer
    if policy != "auto":
        first = bos_id(tokenizer, policy)
        text = None if first is None else token_text(tokenizer, first)
        return StandsFirst(policy=policy, text=text, reason=f"asked for by --bos {policy}", best=text)
    own = put_first_by_itself(tokenizer)
    if own is not None:
        text = token_text(tokenizer, own)
        return StandsFirst(
            policy=policy, text=text, reason="the tokenizer puts it there by itself", best=text
        )
    asked = _trained(model)
    about = {
        "method": _METHOD,
        "weights": weights if weights and asked is model else asked.weights_digest(),
        "configuration": asked.config_digest(),
        "tokenizer": tokenizer_digest(tokenizer),
        "template": str(getattr(tokenizer, "chat_template", None) or ""),
        "texts": plain_set(asked),
    }
    kept = recalled("standing_first", about)
    if kept is not None:
        return StandsFirst.model_validate(kept)
    with asked.in_use():
        chosen = _by_loss(asked)
    keep("standing_first", about, chosen.model_dump())
    return chosen


def _trained(model: LayeredModel) -> LayeredModel:
    """The model itself, or the trained one that an untrained twin is the twin of."""
    if model.facts.untrained is None:
        return model
    alive = model.trained() if model.trained is not None else None
    if alive is None and model.facts.loadable:
        facts = model.facts
        return load_model(
            facts.source,
            device=facts.device,
            dtype=facts.dtype,
            revision=facts.revision,
            trust_remote_code=facts.trust_remote_code,
        )
    return alive or model


def _by_loss(model: LayeredModel) -> StandsFirst:
    candidates, more = _candidates(model)
    screened, others = _documents(model)
    if not candidates or len(others) < _FEWEST:
        why = (
            "bundled text gives too few tokens to try one"
            if candidates
            else "the tokenizer has no token for it"
        )
        return StandsFirst(policy="auto", text=None, reason=why, best=next(iter(candidates.values()), None))
    firsts = (None, *candidates)
    means = loss_behind(model, firsts, screened).mean(1).tolist()
    losses: dict[int | None, float] = dict(zip(firsts, means, strict=True))
    best = min(candidates, key=lambda first: losses[first])
    behind, without = loss_behind(model, (best, None), others)
    difference = behind - without
    over = bootstrap_mean(difference[:, None].double().numpy(), seed=0)
    value, low, high = (float(end[0]) for end in (over.value, over.low, over.high))
    tried = [
        Tried(text=candidates[first] if first is not None else "", loss=loss)
        if first != best
        else Tried(text=candidates[first], loss=loss, difference=value, low=low, high=high)
        for first, loss in losses.items()
    ]
    wins = high < 0
    return StandsFirst(
        policy="auto",
        text=candidates[best] if wins else None,
        reason=_reason(candidates[best], wins, (-value, -high, -low), len(others), more),
        best=candidates[best],
        tried=tuple(sorted(tried, key=lambda one: one.loss)),
    )


def _reason(best: str, wins: bool, gain: tuple[float, float, float], documents: int, more: int) -> str:
    value, low, high = (f"{number:.2f}".replace("-", "−") for number in gain)
    numbers = (
        f"{value} nats per token less than behind nothing (95% CI {low} to {high}, {documents} documents)"
    )
    limited = f"; {more} further special tokens were not tried" if more else ""
    if wins:
        return f"the loss of plain text is lowest behind it, {numbers}{limited}"
    return f"no special token lowers the loss of plain text significantly; the best is {best}, {numbers}{limited}"


def _candidates(model: LayeredModel) -> tuple[dict[int, str], int]:
    """Special tokens that may stand first, by id, and how many more there would be."""
    rows = int(model.module.get_input_embeddings().weight.shape[0])
    turns = turn_tokens(model.tokenizer)
    found = {
        number: text
        for number, text in special_tokens(model.tokenizer).items()
        if text not in turns and number < rows
    }
    return dict(list(found.items())[:_MOST_CANDIDATES]), max(0, len(found) - _MOST_CANDIDATES)


def _documents(model: LayeredModel) -> tuple[list[list[int]], list[list[int]]]:
    """Beginnings of bundled documents, spread over the set: a few to find the best candidate, others to test it."""
    encoded = (
        bare_encoding(model.tokenizer, passage.text)[0]
        for passage in _spread(load_passages(plain_set(model)))
    )
    long = [ids[:_TOKENS] for ids in encoded if len(ids) >= _TOKENS]
    return [ids[:_SCREEN_TOKENS] for ids in long[:_SCREENED]], long[_SCREENED:]


def _spread(passages: Sequence[Passage]) -> list[Passage]:
    """Passages from all over the set, so ordered that the first few are from all over it too."""
    count = min(len(passages), _SCREENED + _DOCUMENTS)
    every = [passages[index * len(passages) // count] for index in range(count)]
    step = max(1, count // _SCREENED)
    return [passage for start in range(step) for passage in every[start::step]]
