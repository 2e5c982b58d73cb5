"""What kind of token is this? Categories are data: lists of words and patterns that a run can change.

Two things are told apart for every token. Its *category*: the first of a list of categories that fits
it, by default those of the post (newline, full stop, comma, common word, alphabetic, other). And its
*traits*, which are free to overlap with categories: whether it is a pronoun, which piece of a word it is,
whether it ends a known name.

Source: Nanda et al. 2023, "Fact Finding" part 5: the categories, and the list of common words.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from layerscope.errors import LayerscopeError
from layerscope.text.record_fields import shown
from layerscope.text.tokens import Tokens

COMMON_WORDS = (
    "and", "of", "or", "in", "to", "that", "which", "with", "for", "the", "a", "an", "they", "on", "is",
    "their", "but", "are", "its", "i", "we", "it", "at",
)  # fmt: skip
"""The post's list of 23, made by its authors by hand from tokens with an unusually low similarity."""

PRONOUNS = (
    "i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves", "you", "your", "yours",
    "yourself", "yourselves", "he", "him", "his", "himself", "she", "her", "hers", "herself", "it", "its",
    "itself", "they", "them", "their", "theirs", "themselves", "who", "whom", "whose",
)  # fmt: skip
"""Personal, possessive, reflexive and relative pronouns of English; ours."""

BOS, OTHER = "BOS", "other"
"""Categories that need no rule: the token put in front of a text, and whatever no rule fits."""

Piece = Literal["whole word", "first piece", "middle piece", "last piece", "no word"]
PIECES: tuple[Piece, ...] = ("whole word", "first piece", "middle piece", "last piece", "no word")
_WHOLE, _FIRST, _MIDDLE, _LAST, _NONE = PIECES


class TokenCategory(BaseModel):
    """One category: a token belongs where its text is one of the words or matches the pattern.

    Words are compared without blanks around the token and without regard to capitals. A pattern must
    match the whole text of the token, blanks included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    words: tuple[str, ...] = ()
    pattern: str = ""
    whole_words: bool = Field(False, description="whether a piece of a longer word is kept out")

    @model_validator(mode="after")
    def _can_be_told(self) -> TokenCategory:
        if not self.words and not self.pattern:
            raise ValueError(f"the category {self.name} has neither words nor a pattern")
        if self.name in (BOS, OTHER):
            raise ValueError(f"{self.name} is what no rule fits, and has none itself")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"{self.pattern} is no regular expression: {error}") from error
        return self

    def fits(self, text: str, piece: Piece) -> bool:
        """Whether a token with this text, which is this piece of a word, belongs here."""
        if self.whole_words and piece != _WHOLE:
            return False
        if text.strip().casefold() in _folded(self.words):
            return True
        return bool(self.pattern) and re.fullmatch(self.pattern, text) is not None


@cache
def _folded(words: tuple[str, ...]) -> frozenset[str]:
    return frozenset(word.strip().casefold() for word in words)


CATEGORIES = (
    TokenCategory(name="newline", pattern=r"\s*[\n\r]\s*"),
    TokenCategory(name="full stop", pattern=r"\s*\.\s*"),
    TokenCategory(name="comma", pattern=r"\s*,\s*"),
    TokenCategory(name="common word", words=COMMON_WORDS),
    # Letters, and marks that stand on letters, which regular expressions take for no letters.
    TokenCategory(name="alphabetic", pattern=r"\s*(?:[^\W\d_]|[\u0300-\u036f\u0900-\u0dff])+\s*"),
)
"""The post's categories, in the order in which they are tried; what fits none is `other`."""

PRONOUN = TokenCategory(name="pronoun", words=PRONOUNS, whole_words=True)


@dataclass(frozen=True)
class TokenLabels:
    """What every token of a text is, in order.

    Attributes:
        category: name of the first category that fits, `BOS` or `other`.
        piece: which piece of a word: one of PIECES.
        pronoun: whether it is a pronoun, as a word of its own.
        entity_final: whether it ends an occurrence of a known name.
    """

    category: tuple[str, ...]
    piece: tuple[Piece, ...]
    pronoun: tuple[bool, ...]
    entity_final: tuple[bool, ...]


def label_tokens(
    tokens: Tokens,
    text: str,
    *,
    categories: Sequence[TokenCategory] = CATEGORIES,
    pronoun: TokenCategory = PRONOUN,
    entities: Sequence[str] = (),
) -> TokenLabels:
    """The category and the traits of every token.

    Args:
        tokens: of the text, or of its beginning.
        text: what the tokens' spans point into.
        categories: tried in order; the first that fits counts.
        pronoun: what counts as a pronoun.
        entities: names that are known, each found wherever it stands in the text as whole words.
    """
    pieces = pieces_of_words(tokens, text)
    first_fit, is_pronoun = _first_fit(tuple(categories)), _first_fit((pronoun,))
    said = list(zip(tokens.texts, pieces, strict=True))
    names = tuple(
        BOS if tokens.bos and place == 0 else first_fit(word, piece)
        for place, (word, piece) in enumerate(said)
    )
    ends = set(last_of(tokens, list(occurrences(text, entities))))
    return TokenLabels(
        category=names,
        piece=pieces,
        pronoun=tuple(is_pronoun(word, piece) == pronoun.name for word, piece in said),
        entity_final=tuple(place in ends for place in range(len(tokens))),
    )


def category_names(categories: Sequence[TokenCategory] = CATEGORIES) -> list[str]:
    """Every name that `label_tokens` can give a token of the text, `other` last; BOS is no such token."""
    return [*dict.fromkeys(category.name for category in categories), OTHER]


@cache
def _first_fit(categories: tuple[TokenCategory, ...]) -> Callable[[str, Piece], str]:
    """What names the first category that fits; the same tokens come again and again, and are tried once."""

    @lru_cache(maxsize=65536)
    def name(text: str, piece: Piece) -> str:
        return next((category.name for category in categories if category.fits(text, piece)), OTHER)

    return name


def pieces_of_words(tokens: Tokens, text: str) -> tuple[Piece, ...]:
    """Which piece of a word each token is.

    A word is a run of letters, apostrophes inside it included: "don't" is one, "12th" has one of two
    letters. A token that holds characters of no word, or of several, is "no word". In scripts that put
    no blanks between words a word in this sense can be a whole sentence.
    """
    pieces: list[Piece] = [_NONE] * len(tokens)
    touched: dict[int, list[int]] = {place: [] for place in range(len(tokens))}
    members = _tokens_within(tokens, list(words_of(text)))
    for word, places in enumerate(members):
        for place in places:
            touched[place].append(word)
    for places in members:
        for order, place in enumerate(places):
            if len(touched[place]) == 1:
                pieces[place] = _piece(order, len(places))
    return tuple(pieces)


def _piece(order: int, count: int) -> Piece:
    if count == 1:
        return _WHOLE
    if order == 0:
        return _FIRST
    return _LAST if order == count - 1 else _MIDDLE


def words_of(text: str) -> Iterator[tuple[int, int]]:
    """Characters [start, end) of every word: letters, their marks, and apostrophes between letters."""
    start = None
    for at, character in enumerate(text):
        inside = _is_letter(character) or (
            start is not None and character in "'’" and at + 1 < len(text) and _is_letter(text[at + 1])
        )
        if inside and start is None:
            start = at
        if not inside and start is not None:
            yield start, at
            start = None
    if start is not None:
        yield start, len(text)


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _tokens_within(tokens: Tokens, spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    """For each span, the tokens that share a character with it."""
    starts = [start for start, _ in tokens.spans]  # in order, so that the search is short
    return [_within_one(tokens, starts, span) for span in spans]


def _within_one(tokens: Tokens, starts: list[int], span: tuple[int, int]) -> list[int]:
    place = bisect_left(starts, span[0])
    while place > 0 and tokens.spans[place - 1][1] > span[0]:
        place -= 1
    found = []
    while place < len(tokens) and tokens.spans[place][0] < span[1]:
        first, after = tokens.spans[place]
        if first < after and after > span[0]:
            found.append(place)
        place += 1
    return found


def occurrences(text: str, names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Characters [start, end) of every place where one of the names stands as whole words; longest first."""
    known = sorted({name.strip() for name in names if name.strip()}, key=lambda name: (-len(name), name))
    if known:
        either = "|".join(re.escape(name) for name in known)
        for match in re.finditer(rf"(?<!\w)(?:{either})(?!\w)", text):
            yield match.span()


def last_of(tokens: Tokens, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The last token that shares a character with each span; spans that the tokens do not reach are left out."""
    reached = max((end for _, end in tokens.spans), default=0)
    within = _tokens_within(tokens, [span for span in spans if span[1] <= reached])
    return [places[-1] for places in within if places]


def load_categories(path: str | Path) -> tuple[TokenCategory, ...]:
    """Categories from a JSON file: a list of {"name", "words" or "pattern", "whole_words"}.

    Raises:
        LayerscopeError: no such file, not JSON, or an entry that is no category.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise _unreadable(path, shown(entries))
    return tuple(_read_category(path, number, entry) for number, entry in enumerate(entries, start=1))


def _read_category(path: str | Path, number: int, entry: Any) -> TokenCategory:
    try:
        return TokenCategory.model_validate(entry)
    except ValidationError as error:
        raise _unreadable(path, f"entry {number}: {error.errors()[0]['msg']}") from error


def _unreadable(path: str | Path, found: str) -> LayerscopeError:
    return LayerscopeError(
        f"these token categories cannot be read: {path}",
        found=found,
        expected='a JSON list such as [{"name": "digit", "pattern": " *[0-9]+"}]',
        hint="the first category that fits a token counts",
    )
