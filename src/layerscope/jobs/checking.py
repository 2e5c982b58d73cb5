"""Which prompts meet the constraints on this model, and why not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from layerscope.jobs.texts import tokenised_prompts
from layerscope.models.layered import LayeredModel
from layerscope.runs.answers import answer_of
from layerscope.text.constraints import Constraint, clean_constraint, constraints_of, strip
from layerscope.text.tokenised import TokenisedPrompt
from layerscope.text.tokens import BosPolicy


@dataclass(frozen=True)
class PromptCheck:
    """One prompt on one model.

    Attributes:
        prompt: as the model reads it.
        strip: its tokens on one line, blanks visible, noised ones starred.
        constraints: every condition, whether it holds, and what was found.
        probability: of the answer's first token in the clean run; NaN where the model cannot read the prompt.
        rank: of that token, 1 for the top; 0 where unknown.
        answer: the token that would be traced.
        top: the model's most probable token.
    """

    prompt: TokenisedPrompt
    strip: str
    constraints: tuple[Constraint, ...]
    probability: float
    rank: int
    answer: str
    top: str

    @property
    def left_out_because(self) -> tuple[str, ...]:
        """Why a trace would leave the prompt out; empty when it would not."""
        return tuple(f"{c.name}: {c.detail}" for c in self.constraints if c.needed and not c.holds)


def check_prompts(
    model: LayeredModel, source: Any, *, bos: BosPolicy = "auto", chat: bool = False
) -> list[PromptCheck]:
    """Check every prompt of a file or a set on a model, one clean run each.

    Args:
        model: the model.
        source: what `load_prompts` takes.
        bos: what stands first; a run decides "auto" by `standing_first`.
        chat: put prompts into the tokenizer's chat template.
    """
    return [_checked(model, prompt) for prompt in tokenised_prompts(model, source, bos=bos, chat=chat)]


def _checked(model: LayeredModel, prompt: TokenisedPrompt) -> PromptCheck:
    context = model.facts.context
    constraints = constraints_of(prompt, context=context)
    if context is not None and prompt.n_tokens > context:
        return PromptCheck(prompt, strip(prompt), constraints, math.nan, 0, "", "")
    answer = answer_of(model, prompt.tokens.ids, None if prompt.own else prompt.answer_ids[0])
    top, text = (model.tokenizer.decode([token]) for token in (answer.top, answer.token))
    probability = math.exp(answer.log_probability)
    right = clean_constraint(
        prompt, top1_id=answer.top, top1_text=top, rank=answer.rank, probability=probability
    )
    return PromptCheck(prompt, strip(prompt), (*constraints, right), probability, answer.rank, text, top)
