"""Which prompts meet the constraints on this model, and why not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from layerscope.errors import LayerscopeError
from layerscope.jobs.texts import refuse_foreign_ids
from layerscope.models.layered import LayeredModel
from layerscope.runs.answers import answer_of
from layerscope.text.constraints import Constraint, clean_constraint, constraints_of, strip
from layerscope.text.prompts import prompts_of
from layerscope.text.record_fields import unique_names
from layerscope.text.tokenised import TokenisedPrompt, tokenise_prompt
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


@dataclass(frozen=True)
class Unreadable:
    """A prompt that is stated wrongly, or that the model's tokenizer cannot read."""

    name: str
    error: LayerscopeError

    @property
    def left_out_because(self) -> tuple[str, ...]:
        """Why it cannot be traced."""
        return (self.error.short,)


def check_prompts(
    model: LayeredModel, source: Any, *, bos: BosPolicy = "auto", chat: bool = False
) -> list[PromptCheck | Unreadable]:
    """Check every prompt of a file or a set on a model, one clean run each; one that is wrong hides no other.

    Args:
        model: the model.
        source: what `load_prompts` takes.
        bos: what stands first; a run decides "auto" by `standing_first`.
        chat: put prompts into the tokenizer's chat template.
    """
    found: list[PromptCheck | Unreadable] = []
    for number, read in enumerate(prompts_of(source), start=1):
        name = f"prompt {number}"
        try:
            prompt = read()
            name = prompt.name
            tokenised = tokenise_prompt(model.tokenizer, prompt, bos=bos, chat=chat)
        except LayerscopeError as error:
            found.append(Unreadable(name, error))
            continue
        refuse_foreign_ids(model, (*tokenised.tokens.ids, *tokenised.answer_ids), name)
        with model.in_use():
            found.append(_checked(model, tokenised))
    unique_names([one.prompt.name for one in found if isinstance(one, PromptCheck)], "prompts")
    return found


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
