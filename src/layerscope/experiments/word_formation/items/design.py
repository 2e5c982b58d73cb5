"""Which words word_formation compares: pairs, made-up pairs, twins, and words for the erasure probe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from layerscope.text.tokenised_words import TokenisedWord, tokenise_word
from layerscope.text.word_pieces import token_cutter

Ids = tuple[int, ...]

_MOST_MEMBERS = 6  # of a class of the erasure probes


class Pair(BaseModel):
    """Two words with the same last piece and as many pieces, that differ before.

    Attributes:
        kind: "words", or "made up" for two strings of pieces that are no words of the list.
        source, target: what they read as.
        source_ids, target_ids: their pieces.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    source: str
    target: str
    source_ids: Ids
    target_ids: Ids


class Twin(BaseModel):
    """A word as one token, the same word in pieces, and the last piece behind another word's first pieces."""

    model_config = ConfigDict(frozen=True)

    word: str
    whole: Ids
    split: Ids
    swapped: Ids


class Erased(BaseModel):
    """A token whose predecessor is to be told: the text behind the prefix, and which of the classes it is.

    Attributes:
        kind: "within", inside one word, or "across", from one word to the next.
        label: class of the predecessor.
        test: whether it is held out; the token itself stands in no training case of its class.
        ids: tokens behind the prefix; the last one is read.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    label: int
    test: bool
    ids: Ids


def pairs_of(words: Sequence[TokenisedWord], pieces: int, most: int, rng: np.random.Generator) -> list[Pair]:
    """Pairs of words of so many pieces that share the last one and not the first; no word is in two pairs.

    A piece that every such word begins with (a blank of its own) does not count as their first.
    """
    fitting = [word for word in words if len(word.ids) == pieces]
    columns = zip(*(word.ids for word in fitting), strict=True)
    first = next((place for place, column in enumerate(columns) if len(set(column)) > 1), pieces)
    if first >= pieces - 1:
        return []
    by_last: dict[int, list[TokenisedWord]] = defaultdict(list)
    for word in _shuffled(fitting, rng):
        by_last[word.ids[-1]].append(word)
    found = [
        Pair(kind="words", source=a.word, target=b.word, source_ids=a.ids, target_ids=b.ids)
        for group in by_last.values()
        for a, b in zip(group[0::2], group[1::2], strict=False)
        if a.ids[first] != b.ids[first]
    ]
    return _shuffled(found, rng)[:most]


def made_up(pairs: Sequence[Pair], words: Sequence[TokenisedWord], rng: np.random.Generator) -> list[Pair]:
    """For each pair the same earlier pieces before another last piece, with which neither is a word of the list."""
    known = {word.ids for word in words}
    found = []
    for pair in pairs:
        ends = {w.ids[-1]: w.texts[-1] for w in words if len(w.ids) == len(pair.source_ids)}
        free = [
            end
            for end in ends
            if (*pair.source_ids[:-1], end) not in known and (*pair.target_ids[:-1], end) not in known
        ]
        if free:
            end = free[int(rng.integers(len(free)))]
            found.append(
                Pair(
                    kind="made up",
                    source=f"{pair.source} with {ends[end]}",
                    target=f"{pair.target} with {ends[end]}",
                    source_ids=(*pair.source_ids[:-1], end),
                    target_ids=(*pair.target_ids[:-1], end),
                )
            )
    return found


def twins_of(
    tokenizer: Any, words: Sequence[TokenisedWord], way: str, most: int, rng: np.random.Generator
) -> list[Twin]:
    """Words of one token with a second form of several, as the setting `twin` says."""
    other = _other_form(tokenizer, way)
    found = [(word, other(word)) for word in words if len(word.ids) == 1]
    forms = _shuffled([(word, split) for word, split in found if split is not None and len(split) > 1], rng)[
        :most
    ]
    twins = []
    for place, (word, split) in enumerate(forms):
        others = [
            there
            for _, there in (*forms[place + 1 :], *forms[:place])
            if len(there) == len(split) and there[:-1] != split[:-1] and there[-1] != split[-1]
        ]
        if others:
            twins.append(
                Twin(word=word.word, whole=word.ids, split=split, swapped=(*others[0][:-1], split[-1]))
            )
    return twins


def _other_form(tokenizer: Any, way: str) -> Callable[[TokenisedWord], Ids | None]:
    if way == "blank":
        return lambda word: word.alone
    if way == "capital":
        return lambda word: tokenise_word(tokenizer, word.word[:1].upper() + word.word[1:]).ids
    cut = token_cutter(tokenizer)
    return lambda word: cut(word.ids[0])


def erased_cases(
    words: Sequence[TokenisedWord], classes: int, contexts: int, rng: np.random.Generator
) -> list[Erased]:
    """Cases for both probes, with equally many classes and cases, or none where the list does not allow it.

    Within: classes are pieces before the last that at least three words have; a third of their words is
    held out. Across: classes are words of one token; the word behind them is one of one token too.
    """
    by_piece: dict[int, list[TokenisedWord]] = defaultdict(list)
    for word in words:
        if len(word.ids) > 1:
            by_piece[word.ids[-2]].append(word)
    singles = _shuffled([word for word in words if len(word.ids) == 1], rng)
    groups = sorted(
        (g for g in by_piece.values() if len({w.ids[-1] for w in g}) >= 3), key=len, reverse=True
    )[:classes]
    if len(groups) < 2:
        return []
    before = singles or [group[0] for group in groups]
    cases = []
    for label, group in enumerate(groups):
        members = _one_of_each_token(_shuffled(group, rng))[:_MOST_MEMBERS]
        cases += _cases("within", label, before, (), members, contexts, rng)
    if len(singles) >= 3 * len(groups):
        heads, rest = singles[: len(groups)], singles[len(groups) :]
        for label, (head, group) in enumerate(zip(heads, groups, strict=True)):
            several = min(len(_one_of_each_token(group)), _MOST_MEMBERS)
            members = [rest[int(i)] for i in rng.choice(len(rest), size=several, replace=False)]
            cases += _cases("across", label, rest, head.ids, members, contexts, rng)
    return cases


def _one_of_each_token(words: Sequence[TokenisedWord]) -> list[TokenisedWord]:
    """The first word of each last token: with two, one could be learnt from and the other be held out."""
    found: dict[int, TokenisedWord] = {}
    for word in words:
        found.setdefault(word.ids[-1], word)
    return list(found.values())


def _cases(
    kind: str,
    label: int,
    before: Sequence[TokenisedWord],
    between: Ids,
    members: Sequence[TokenisedWord],
    contexts: int,
    rng: np.random.Generator,
) -> list[Erased]:
    """A class's words, a third of them held out, each behind some words drawn from those before."""
    held = max(1, len(members) // 3)
    cases = []
    for number, word in enumerate(members):
        for _ in range(contexts):
            start = before[int(rng.integers(len(before)))].ids
            cases.append(
                Erased(kind=kind, label=label, test=number < held, ids=(*start, *between, *word.ids))
            )
    return cases


def _shuffled(things: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    return [things[i] for i in rng.permutation(len(things))]
