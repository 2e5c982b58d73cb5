"""The ids of an answer: what is added when prompt and answer are written together."""

from __future__ import annotations

from typing import Any, NamedTuple

from layerscope.errors import LayerscopeError
from layerscope.text.record_fields import shown
from layerscope.text.spans import read_pieces
from layerscope.text.tokens import bare_encoding


class Answer(NamedTuple):
    """An answer's ids, what they read as, and a note where they were not found in the usual way."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    note: str = ""


def encode_answer(
    tokenizer: Any, text: str, ids: list[int], answer: str, *, name: str, chat: bool = False
) -> Answer:
    """The ids with which the text goes on into the answer.

    Text and answer are encoded together and the text's own ids taken off. Where the two merge into one
    token, the answer is encoded by itself, which is accepted only if text and answer then decode to the
    same characters as together.

    Args:
        tokenizer: a transformers tokenizer with offsets.
        text: what the model reads; in a chat, the rendered chat.
        ids: the encoding of `text`, nothing added.
        answer: as the file has it; "" gives an empty Answer.
        name: the prompt's id, for errors.
        chat: whether special tokens in `text` count as such; a blank before the answer is then dropped
            if the chat ends in white space.

    Raises:
        LayerscopeError: the answer gives no tokens of its own.
    """
    if not answer:
        return Answer((), ())
    note = ""
    if chat and text[-1:].isspace() and answer[0] == " ":
        answer, note = answer[1:], "the answer's leading blank was dropped: the chat ends in white space"
    whole, offsets = bare_encoding(tokenizer, text + answer, parse_special=chat)
    if len(whole) > len(ids) and whole[: len(ids)] == ids:
        pieces = read_pieces(tokenizer, text + answer, whole, offsets)[len(ids) :]
        return Answer(tuple(whole[len(ids) :]), tuple(piece.text for piece in pieces), note)
    return _alone(tokenizer, ids, whole, answer, name)


def _alone(tokenizer: Any, ids: list[int], whole: list[int], answer: str, name: str) -> Answer:
    together = _decode(tokenizer, whole)
    # Tokenizers that put a blank before every text do so before the line end, which is then taken off.
    for before in ("", "\n"):
        own, texts = _less_beginning(tokenizer, before, answer)
        if own and _decode(tokenizer, ids + own) == together:
            note = "the prompt's end and the answer merge into one token: the answer was encoded by itself"
            return Answer(tuple(own), texts, note)
    raise LayerscopeError(
        f"the answer of {name} cannot be told apart from its prompt",
        found=f"{shown(answer)}, which this tokenizer merges with the prompt's end or drops",
        expected="an answer with tokens of its own",
        hint="move the blank between prompt and answer to the beginning of the answer",
    )


def _less_beginning(tokenizer: Any, before: str, answer: str) -> tuple[list[int], tuple[str, ...]]:
    """The answer's ids and readings when it stands behind `before`."""
    text, taken_off = before + answer, len(bare_encoding(tokenizer, before)[0])
    ids, offsets = bare_encoding(tokenizer, text)
    pieces = read_pieces(tokenizer, text, ids, offsets)[taken_off:]
    return ids[taken_off:], tuple(piece.text for piece in pieces)


def _decode(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
