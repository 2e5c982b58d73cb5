"""A prompt as the user's turn of a chat, by the tokenizer's own template; only on request."""

from __future__ import annotations

from functools import cache
from typing import Any

from layerscope.errors import LayerscopeError
from layerscope.text.record_fields import shown
from layerscope.text.tokens import bare_encoding, put_first_by_itself, special_tokens


def rendered_chat(tokenizer: Any, text: str) -> tuple[str, int]:
    """The chat that ends where the model's turn begins, and the character at which `text` stands in it.

    Raises:
        LayerscopeError: no chat template; one that fails, or that does not keep the text, or has it twice; or a
            text that holds a special token, which could not be told from the template's own.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise LayerscopeError(
            "this tokenizer has no chat template",
            found=f"{type(tokenizer).__name__} without chat_template",
            expected="the tokenizer of a chat model",
            hint="leave chat out: the prompt is then read as plain text",
        )
    _refuse_special_tokens(tokenizer, text)
    turns = [{"role": "user", "content": text}]
    try:
        chat = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template raises what it likes
        raise LayerscopeError(
            "the chat template of this tokenizer fails",
            found=shown(f"{type(error).__name__}: {error}"),
            expected="a template that renders one turn of a user",
            hint="mend chat_template, or leave chat out: the prompt is then read as plain text",
        ) from error
    if chat.count(text) != 1:
        raise LayerscopeError(
            "the prompt cannot be found in the chat made of it",
            found=f"{chat.count(text)} times {shown(text)} in {shown(chat)}",
            expected="exactly once",
            hint="templates often cut blanks at either end of a text: remove them; or leave chat out",
        )
    return chat, chat.index(text)


def begins_chat(tokenizer: Any, ids: list[int]) -> bool:
    """Whether a rendered chat's first token is BOS: it stands first without opening the turn."""
    own = {put_first_by_itself(tokenizer), getattr(tokenizer, "bos_token_id", None)}
    return bool(ids) and ids[0] in own and special_tokens(tokenizer).get(ids[0]) not in turn_tokens(tokenizer)


@cache
def turn_tokens(tokenizer: Any) -> frozenset[str]:
    """The special tokens that open or close a turn of the chat template: a longer chat has more of them.

    Where a template cannot be tried on two lengths, every special token that is written in it.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        return frozenset()
    special = special_tokens(tokenizer).values()
    try:
        short, long = (
            str(tokenizer.apply_chat_template(_turns(number), tokenize=False, add_generation_prompt=True))
            for number in (1, 2)
        )
    except Exception:  # a template raises what it likes
        return frozenset(token for token in special if token in str(template))
    return frozenset(token for token in special if long.count(token) > short.count(token))


def _turns(number: int) -> list[dict[str, str]]:
    return [{"role": role, "content": "a"} for _ in range(number) for role in ("user", "assistant")] + [
        {"role": "user", "content": "a"}
    ]


def _refuse_special_tokens(tokenizer: Any, text: str) -> None:
    if bare_encoding(tokenizer, text)[0] != bare_encoding(tokenizer, text, parse_special=True)[0]:
        raise LayerscopeError(
            "the prompt holds a special token, which a chat would act on",
            found=shown(text),
            expected="plain text",
            hint="remove the special token, or leave chat out: it is then read as plain characters",
        )
