"""Prompts and passages as tokens: which tokens are noised, and which ids the answer has."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from layerscope.errors import LayerscopeError
from layerscope.text.answers import encode_answer
from layerscope.text.chat import begins_chat, rendered_chat
from layerscope.text.passages import Passage
from layerscope.text.prompts import Prompt
from layerscope.text.tokens import BosPolicy, Tokens, bare_encoding, bos_id, token_text, with_bos


class TokenisedPrompt(BaseModel):
    """A prompt as a model reads it. Survives JSON both ways.

    Attributes:
        prompt: as it was loaded.
        text: what `tokens.spans` and `subject` point into: the prompt's text, or the chat it was put in.
        subject: the characters [start, end) of `text` that are noised.
        tokens: the tokens of `text`, with BOS if the policy put it there.
        noised: positions of the tokens that share a character with the subject, by offsets.
        answer_ids: the tokens that continue the prompt into the answer; empty when `own`.
        answer_texts: what they read as.
        note: what had to be done differently here, or "".
        partner_ids: the noised tokens' ids with the prompt's partner in the subject's place; empty where it
            has none, or where they would not fit.
        partner_problem: why they would not fit, or "".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt
    text: str
    subject: tuple[int, int]
    tokens: Tokens
    noised: tuple[int, ...]
    answer_ids: tuple[int, ...]
    answer_texts: tuple[str, ...]
    note: str = ""
    partner_ids: tuple[int, ...] = ()
    partner_problem: str = ""

    @property
    def name(self) -> str:
        """The prompt's id."""
        return self.prompt.name

    @property
    def category(self) -> str:
        """The prompt's category."""
        return self.prompt.category

    @property
    def own(self) -> bool:
        """Whether the model's own top-1 is traced, the prompt stating no answer."""
        return not self.prompt.answer

    @property
    def n_tokens(self) -> int:
        """How many tokens the model reads, BOS included."""
        return len(self.tokens)

    @property
    def last(self) -> int:
        """The position at which the answer is read out."""
        return self.n_tokens - 1


class TokenisedPassage(BaseModel):
    """A passage as a model reads it: its first tokens, and how many were left out (`cut`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passage: Passage
    tokens: Tokens
    cut: int

    @property
    def name(self) -> str:
        """The passage's id."""
        return self.passage.name


def tokenise_prompt(
    tokenizer: Any, prompt: Prompt, *, bos: BosPolicy = "auto", chat: bool = False
) -> TokenisedPrompt:
    """Encode a prompt and find its noised tokens and its answer's ids.

    Args:
        tokenizer: a transformers tokenizer with offsets.
        prompt: what to encode.
        bos: see `tokens.encode`; in a chat, "auto" is what the template writes.
        chat: put the prompt into the tokenizer's chat template as the user's turn. The template's special
            tokens count as such; its BOS is neither doubled nor, with "never", kept.

    Raises:
        LayerscopeError: see `tokens.encode`; a prompt without tokens; an answer that cannot be told apart
            from the prompt; with `chat`, no template, or one that changes the prompt's text.
    """
    text, shift = rendered_chat(tokenizer, prompt.text) if chat else (prompt.text, 0)
    subject = (prompt.subject[0] + shift, prompt.subject[1] + shift)
    ids, offsets = bare_encoding(tokenizer, text, parse_special=chat)
    if not ids:
        raise _no_tokens("prompt", prompt.name)
    answer = encode_answer(tokenizer, text, ids, prompt.answer, name=prompt.name, chat=chat)
    if chat:
        ids, offsets, bos = _without_its_bos(tokenizer, ids, offsets, bos)
    tokens = with_bos(tokenizer, text, ids, offsets, bos)
    noised = overlapping(tokens, subject)
    partner_ids, problem = _partner(tokenizer, prompt, text, subject, tokens, noised, bos=bos, chat=chat)
    return TokenisedPrompt(
        prompt=prompt,
        text=text,
        subject=subject,
        tokens=tokens,
        noised=noised,
        answer_ids=answer.ids,
        answer_texts=answer.texts,
        note=answer.note,
        partner_ids=partner_ids,
        partner_problem=problem,
    )


def _without_its_bos(
    tokenizer: Any, ids: list[int], offsets: list[tuple[int, int]], bos: BosPolicy
) -> tuple[list[int], list[tuple[int, int]], BosPolicy]:
    """A rendered chat without the BOS that its template wrote, and what is to stand there instead."""
    if not begins_chat(tokenizer, ids):
        return ids, offsets, "never" if bos == "auto" else bos
    return ids[1:], offsets[1:], token_text(tokenizer, ids[0]) if bos == "auto" else bos


def _partner(
    tokenizer: Any,
    prompt: Prompt,
    text: str,
    subject: tuple[int, int],
    tokens: Tokens,
    noised: tuple[int, ...],
    *,
    bos: BosPolicy,
    chat: bool,
) -> tuple[tuple[int, ...], str]:
    """Ids of the partner's tokens in the subject's place, or why they do not fit."""
    if not prompt.partner:
        return (), ""
    replaced = text[: subject[0]] + prompt.partner + text[subject[1] :]
    ids, offsets = bare_encoding(tokenizer, replaced, parse_special=chat)
    if chat:
        ids, offsets, _ = _without_its_bos(tokenizer, ids, offsets, bos)
    other = with_bos(tokenizer, replaced, ids, offsets, bos).ids
    if len(other) != len(tokens.ids):
        return (
            (),
            f"the partner {prompt.partner!r} makes {len(other)} tokens of the prompt, not {len(tokens.ids)}",
        )
    elsewhere = [i for i, pair in enumerate(zip(other, tokens.ids, strict=True)) if pair[0] != pair[1]]
    if not elsewhere or not set(elsewhere) <= set(noised):
        return (), f"the partner {prompt.partner!r} does not change the subject's tokens, and these alone"
    return tuple(other[position] for position in noised), ""


def tokenise_passage(
    tokenizer: Any, passage: Passage, *, bos: BosPolicy = "auto", longest: int | None = None
) -> TokenisedPassage:
    """Encode a passage and keep its first `longest` tokens, BOS included.

    Raises:
        LayerscopeError: see `tokens.encode`; a passage without tokens; a `longest` that leaves none.
    """
    ids, offsets = bare_encoding(tokenizer, passage.text)
    if not ids:
        raise _no_tokens("passage", passage.name)
    kept = len(ids) if longest is None else longest - (bos_id(tokenizer, bos) is not None)
    if kept < 1:
        raise LayerscopeError(
            "passages cannot be cut this short",
            found=f"longest = {longest}",
            expected="room for one token of the text, beside BOS if there is one",
            hint="longest = 2 or more",
        )
    tokens = with_bos(tokenizer, passage.text, ids[:kept], offsets[:kept], bos)
    return TokenisedPassage(passage=passage, tokens=tokens, cut=max(0, len(ids) - kept))


def overlapping(tokens: Tokens, span: tuple[int, int]) -> tuple[int, ...]:
    """Positions of the tokens that share at least one character with the span [start, end)."""
    start, end = span
    return tuple(
        position
        for position, (first, after) in enumerate(tokens.spans)
        if first < after and first < end and after > start
    )


def _no_tokens(what: str, name: str) -> LayerscopeError:
    return LayerscopeError(
        f"the {what} {name} gives no tokens",
        found="nothing that the tokenizer keeps",
        expected="at least one token",
        hint=f"remove the {what}, or use another tokenizer",
    )
