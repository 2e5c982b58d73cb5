"""Which characters a token stands for, and what it reads as.

Tokenizers disagree about offsets: GPT-2's include a token's leading blank and GPT-NeoX's leave it out;
a blank alone may have an empty offset; pieces of one character all have that character's; Llama's blank
before the text borrows the first letter's. Here they are brought to one convention, GPT-2's.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

_NO_CHARACTER = "\ufffd"  # what half a character decodes to


class Piece(NamedTuple):
    """What one token reads as, and the characters [start, end) that it stands for."""

    text: str
    span: tuple[int, int]


def read_pieces(tokenizer: Any, text: str, ids: list[int], offsets: list[tuple[int, int]]) -> list[Piece]:
    """The reading and span of every token of an encoding.

    Args:
        tokenizer: decodes single ids; its own offsets need not follow any one convention.
        text: the text that was encoded.
        ids, offsets: the encoding, nothing added.
    """
    decoded = {token: _decoded(tokenizer, token) for token in set(ids)}
    spans: list[tuple[int, int]] = []
    reached = 0
    for token, offset in zip(ids, offsets, strict=True):
        spans.append(_span(text, decoded[token], offset, reached))
        reached = max(reached, spans[-1][1])
    shared = Counter(spans)
    unknown: int | None = tokenizer.unk_token_id
    return [
        # The model does not see what is written where a token is unknown.
        Piece(str(tokenizer.unk_token), span)
        if token == unknown
        else Piece(_reading(text[slice(*span)], decoded[token], shared[span] > 1), span)
        for token, span in zip(ids, spans, strict=True)
    ]


def _decoded(tokenizer: Any, token: int) -> str:
    return str(tokenizer.decode([token], clean_up_tokenization_spaces=False))


def _span(text: str, decoded: str, offset: tuple[int, int], reached: int) -> tuple[int, int]:
    start, end = offset
    written = text[start:end]
    if not decoded.strip() and written.strip():
        return start, start  # a blank that the tokenizer put there itself
    lead = decoded[: len(decoded) - len(decoded.lstrip())]
    if not written[:1].isspace() and _stands_at(text, lead, start - len(lead), reached):
        start -= len(lead)
    tail = decoded[len(decoded.rstrip()) :]
    if not text[start:end][-1:].isspace() and _stands_at(text, tail, end, reached):
        end += len(tail)
    return start, end


def _stands_at(text: str, blanks: str, at: int, reached: int) -> bool:
    return bool(blanks) and at >= reached and text.startswith(blanks, at)


def _reading(written: str, decoded: str, shared: bool) -> str:
    if written and not shared and _NO_CHARACTER not in decoded:
        return written
    return decoded or " "
