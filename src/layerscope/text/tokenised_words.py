"""Words as tokens: which tokens each word of a treebank has, and how a listed word is split."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import BaseModel, ConfigDict

from layerscope.errors import LayerscopeError
from layerscope.text.tokens import BosPolicy, Tokens, bare_encoding, bos_id, with_bos
from layerscope.text.treebanks import Sentence

LEFT_OUT = {
    "shared": "for a token that is another word's too",
    "unwritten": "not written as such in the text (parts of contractions)",
    "cut": "beyond the length to which texts are cut",
    "untouched": "without a token of their own",
}
"""Why a word of a treebank has no tokens of its own, by the word used in `TokenisedSentence.left_out`."""

_CARRIER = "a"


class TokenisedSentence(BaseModel):
    """A sentence of a treebank as a model reads it.

    Attributes:
        sentence: as it was loaded.
        tokens: its tokens, with BOS if the policy put it there.
        first, last: positions of each word's first and last token; -1 for a word that is left out.
        left_out: for each word "", or a key of LEFT_OUT.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sentence: Sentence
    tokens: Tokens
    first: tuple[int, ...]
    last: tuple[int, ...]
    left_out: tuple[str, ...]

    @property
    def name(self) -> str:
        """The sentence's id."""
        return self.sentence.name


class TokenisedWord(BaseModel):
    """A word of a list as a model reads it.

    Attributes:
        word: as it is written.
        ids: its tokens within a text, after a blank (the blank is part of them, where the tokenizer does
            that); empty if they cannot be told from their neighbours.
        texts: what these tokens read as.
        alone: its tokens at the beginning of a text, BOS not counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    word: str
    ids: tuple[int, ...]
    texts: tuple[str, ...]
    alone: tuple[int, ...]


def tokenise_sentence(
    tokenizer: Any, sentence: Sentence, *, bos: BosPolicy = "auto", longest: int | None = None
) -> TokenisedSentence:
    """Encode a sentence and find the tokens of each word, whatever their number.

    A word has the tokens that share a character with it. A word that shares a token with another is left
    out, and so is the other: that token's state is about both.

    Raises:
        LayerscopeError: see `tokens.encode`; a sentence without tokens; a `longest` that leaves none.
    """
    ids, offsets = bare_encoding(tokenizer, sentence.text)
    kept = len(ids) if longest is None else longest - (bos_id(tokenizer, bos) is not None)
    if not ids or kept < 1:
        raise LayerscopeError(
            f"the sentence {sentence.name} gives no tokens",
            found=f"{len(ids)} tokens, of which at most {kept} would be kept",
            expected="at least one token",
            hint="remove the sentence, or use another tokenizer or length",
        )
    whole = with_bos(tokenizer, sentence.text, ids, offsets, bos)
    pieces = _pieces(whole, sentence)
    limit = len(whole) if longest is None else min(longest, len(whole))
    tokens = Tokens(
        ids=whole.ids[:limit], texts=whole.texts[:limit], spans=whole.spans[:limit], bos=whole.bos
    )
    owners = Counter(position for positions in pieces for position in positions)
    left_out = tuple(
        _why_not(span, positions, owners, limit)
        for span, positions in zip(sentence.spans, pieces, strict=True)
    )
    placed = [(p[0], p[-1]) if not why else (-1, -1) for p, why in zip(pieces, left_out, strict=True)]
    return TokenisedSentence(
        sentence=sentence,
        tokens=tokens,
        first=tuple(first for first, _ in placed),
        last=tuple(last for _, last in placed),
        left_out=left_out,
    )


def _pieces(tokens: Tokens, sentence: Sentence) -> list[list[int]]:
    """Positions of the tokens that share a character, not a blank, with each word; words are in order."""
    pieces: list[list[int]] = [[] for _ in sentence.spans]
    order = sorted(range(len(sentence.spans)), key=lambda word: sentence.spans[word])
    at = 0
    for position, (start, end) in enumerate(tokens.spans):
        while at < len(order) and sentence.spans[order[at]][1] <= start:
            at += 1
        here = at
        while here < len(order) and sentence.spans[order[here]][0] < end:
            first, after = sentence.spans[order[here]]
            if max(first, start) < min(after, end):
                pieces[order[here]].append(position)
            here += 1
    return pieces


def _why_not(span: tuple[int, int], positions: list[int], owners: Counter[int], limit: int) -> str:
    if span[0] == span[1]:
        return "unwritten"
    if not positions:
        return "untouched"
    if any(owners[position] > 1 for position in positions):
        return "shared"
    return "cut" if positions[-1] >= limit else ""


def tokenise_word(tokenizer: Any, word: str) -> TokenisedWord:
    """A listed word's tokens after a blank and at the beginning of a text.

    The word is encoded behind a carrier, for not every tokenizer can be given a leading blank; where one
    token stands for the carrier's end and the word's beginning, `ids` are empty.
    """
    text = f"{_CARRIER} {word}"
    ids, offsets = bare_encoding(tokenizer, text)
    tokens = with_bos(tokenizer, text, ids, offsets, "never")
    start = len(_CARRIER)
    inside = [position for position, span in enumerate(tokens.spans) if span[1] > start]
    clean = bool(inside) and all(tokens.spans[position][0] >= start for position in inside)
    inside = inside if clean else []
    return TokenisedWord(
        word=word,
        ids=tuple(tokens.ids[position] for position in inside),
        texts=tuple(tokens.texts[position] for position in inside),
        alone=tuple(bare_encoding(tokenizer, word)[0]),
    )
