"""Which constraints a prompt meets before it is traced, and why not.

Source: Kinniment 2022, "Recall and Regurgitation in GPT2": top-1 correct, one noised token, neither the
first nor the last.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from layerscope.errors import LayerscopeError
from layerscope.results.escaping import visible
from layerscope.text.tokenised import TokenisedPrompt

_SHOWN = 40
"""Tokens at either end of a text that a line shows."""

FIRST_NOT_NOISED = "first token not corrupted"


class Constraint(BaseModel):
    """One condition on a prompt.

    Attributes:
        name: the condition in words.
        holds: whether the prompt meets it.
        detail: what was found, in a few words.
        needed: whether a prompt that fails it cannot be traced at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    holds: bool
    detail: str
    needed: bool


def constraints_of(tokenised: TokenisedPrompt, *, context: int | None) -> tuple[Constraint, ...]:
    """The conditions that can be told from the tokens alone, the model not yet run.

    Args:
        tokenised: the prompt as tokens.
        context: how many tokens the model can read; None where it states no limit.
    """
    return (
        _fits(tokenised, context),
        _found(tokenised),
        _end_not_noised(tokenised, 0, FIRST_NOT_NOISED),
        _end_not_noised(tokenised, tokenised.last, "last token not corrupted"),
        _exactly_the_subject(tokenised),
        _one_noised(tokenised),
        _one_answer_token(tokenised),
    )


def clean_constraint(
    tokenised: TokenisedPrompt, *, top1_id: int, top1_text: str, rank: int, probability: float
) -> Constraint:
    """Whether the model, undisturbed, gives the answer; a prompt it gets wrong is left out.

    Args:
        tokenised: the prompt as tokens.
        top1_id, top1_text: the token that the model holds most likely.
        rank: the answer's place among all tokens, 1 for the top.
        probability: the answer's, in [0, 1].
    """
    says = f"“{visible(top1_text)}”"
    if tokenised.own:
        holds, detail = True, f"own top-1 {says}, p = {probability:.3g}"
    elif top1_id == tokenised.answer_ids[0]:
        holds, detail = True, f"p = {probability:.3g}"
    else:
        answer = visible(tokenised.answer_texts[0])
        holds, detail = False, f"the model says {says}; “{answer}” is at rank {rank}, p = {probability:.3g}"
        detail += _blank_advice(tokenised, top1_text)
    return Constraint(name="answer is the model's top-1", holds=holds, detail=detail, needed=True)


def refuse_unfit(prompts: Sequence[TokenisedPrompt], *, context: int | None) -> None:
    """Raise one error for all prompts that break a needed constraint.

    Raises:
        LayerscopeError: how many prompts are unfit, the first three with their reasons, and what helps.
    """
    broken = {prompt.name: broken_constraints(prompt, context=context) for prompt in prompts}
    unfit = {name: constraints for name, constraints in broken.items() if constraints}
    if not unfit:
        return
    firsts = [f"{name}: {_reasons(constraints)}" for name, constraints in list(unfit.items())[:3]]
    more = [f"and {len(unfit) - 3} more"] if len(unfit) > 3 else []
    at_first = any(c.name == FIRST_NOT_NOISED for constraints in unfit.values() for c in constraints)
    raise LayerscopeError(
        f"{len(unfit)} of {len(prompts)} prompts cannot be traced",
        found="; ".join(firsts + more),
        expected="a subject inside the context that is neither the first nor the last token",
        hint=("--bos always   (puts a token before the first), or " if at_first else "")
        + "leave out --set unfit=refuse: the others are then used",
    )


def strip(tokenised: TokenisedPrompt) -> str:
    """The tokens on one line, blanks made visible, noised ones starred: `The|*·Eiffel*|·Tower`.

    Of a long text the middle is left out, and how many tokens that are is said.
    """
    shown = [visible(text) for text in tokenised.tokens.texts]
    marked = [f"*{text}*" if position in tokenised.noised else text for position, text in enumerate(shown)]
    if len(marked) > 2 * _SHOWN:
        marked[_SHOWN:-_SHOWN] = [f" … {len(marked) - 2 * _SHOWN:,} tokens … "]
    return "|".join(marked)


def _fits(tokenised: TokenisedPrompt, context: int | None) -> Constraint:
    holds = context is None or tokenised.n_tokens <= context
    limit = "the model states no limit" if context is None else f"the model reads {context}"
    return Constraint(
        name="fits the context", holds=holds, detail=f"{tokenised.n_tokens} tokens; {limit}", needed=True
    )


def _found(tokenised: TokenisedPrompt) -> Constraint:
    noised = _quoted(tokenised, tokenised.noised)
    detail = f"corrupted: {noised}" if noised else "no token stands for any character of the subject"
    return Constraint(name="subject found in tokens", holds=bool(noised), detail=detail, needed=True)


def _end_not_noised(tokenised: TokenisedPrompt, position: int, name: str) -> Constraint:
    hit = position in tokenised.noised
    detail = f"{_quoted(tokenised, (position,))} {'belongs' if hit else 'does not belong'} to the subject"
    return Constraint(name=name, holds=not hit, detail=detail, needed=True)


def _exactly_the_subject(tokenised: TokenisedPrompt) -> Constraint:
    beyond = tuple(position for position in tokenised.noised if _reaches_beyond(tokenised, position))
    detail = f"{_quoted(tokenised, beyond)} reach beyond the subject" if beyond else "they do"
    if len(beyond) == 1:
        detail = detail.replace("reach", "reaches", 1)
    holds = bool(tokenised.noised) and not beyond
    if not tokenised.noised:
        detail = "no token is corrupted"
    return Constraint(
        name="corrupted tokens lie exactly on the subject", holds=holds, detail=detail, needed=False
    )


def _reaches_beyond(tokenised: TokenisedPrompt, position: int) -> bool:
    """Whether a noised token stands for characters outside the subject, other than white space."""
    (start, end), (first, after) = tokenised.subject, tokenised.tokens.spans[position]
    return bool((tokenised.text[first : max(first, start)] + tokenised.text[min(after, end) : after]).strip())


def _one_noised(tokenised: TokenisedPrompt) -> Constraint:
    count = len(tokenised.noised)
    return Constraint(name="one corrupted token", holds=count == 1, detail=f"{count} corrupted", needed=False)


def _one_answer_token(tokenised: TokenisedPrompt) -> Constraint:
    count = len(tokenised.answer_ids)
    parts = "|".join(visible(text) for text in tokenised.answer_texts)
    detail = "own top-1" if tokenised.own else f"{count} token{'s' * (count != 1)}: {parts}"
    return Constraint(
        name="answer is one token", holds=tokenised.own or count == 1, detail=detail, needed=False
    )


def _blank_advice(tokenised: TokenisedPrompt, top1_text: str) -> str:
    """What to change where the model's answer differs from the file's by a blank alone."""
    answer = tokenised.prompt.answer
    if top1_text.strip() not in {answer.strip(), tokenised.answer_texts[0].strip()} - {""}:
        return ""
    if not answer[0].isspace():
        return ": the answer in the file lacks its leading space"
    return ": the two differ in a blank alone; does the prompt end in one?"


def broken_constraints(prompt: TokenisedPrompt, *, context: int | None) -> list[Constraint]:
    """The needed conditions that a prompt does not meet, told from its tokens alone."""
    return [c for c in constraints_of(prompt, context=context) if c.needed and not c.holds]


def _reasons(constraints: Sequence[Constraint]) -> str:
    return ", ".join(f"not “{c.name}” ({c.detail})" for c in constraints)


def _quoted(tokenised: TokenisedPrompt, positions: Sequence[int]) -> str:
    return ", ".join(f"“{visible(tokenised.tokens.texts[position])}”" for position in positions)
