"""The prompts of word_position_probe: a fixed prefix, then units whose index is known.

Units are words, sentences or names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from layerscope.errors import LayerscopeError
from layerscope.experiments.word_position_probe.items.prompts import Laid
from layerscope.maths.position_ceiling import joint_of_beginnings, joint_of_ends
from layerscope.text.tokenised_words import TokenisedWord

FRAMES = (
    "and",
    "met",
    "wrote to",
    "went with",
    "saw the son of",
    "gave the book to",
    "stood by the door near",
    "has a house on the road to",
)
"""What stands between two names; a template is a sequence of these without repeats."""

SENTENCES, WORDS_OF_A_SENTENCE, NAMES = 4, (1, 2, 3), 4
STOPS = (".", " .")
"""How sentences may end: the first that leaves the word before it its tokens."""

FEWEST_WORDS = 5
_TRIES = 50

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True)
class Pools:
    """Words to draw from, by number of tokens, apart for training and test: no word is in both."""

    train: dict[int, tuple[TokenisedWord, ...]]
    test: dict[int, tuple[TokenisedWord, ...]]

    def of(self, test: bool) -> dict[int, tuple[TokenisedWord, ...]]:
        """The words for one side of the split."""
        return self.test if test else self.train


def pools(
    words: Sequence[TokenisedWord], lengths: Sequence[int], rng: np.random.Generator, *, held_out: float
) -> Pools:
    """Words of each length, split at random.

    Raises:
        LayerscopeError: a length with fewer than FEWEST_WORDS words.
    """
    train, test = {}, {}
    for length in lengths:
        fitting = [word for word in words if len(word.ids) == length]
        if len(fitting) < FEWEST_WORDS:
            there = {
                n: sum(len(word.ids) == n for word in words) for n in sorted({len(w.ids) for w in words})
            }
            raise LayerscopeError(
                f"too few words of {length} token{'s' * (length > 1)} on this tokenizer",
                found=f"{len(fitting)} among {len(words)} words; words by number of tokens: {there}",
                expected=f"at least {FEWEST_WORDS} of each length from {min(lengths)} to {max(lengths)}",
                hint=f"--words FILE with more words{_other_lengths(there)}",
            )
        order = [fitting[i] for i in rng.permutation(len(fitting))]
        held = min(len(order) - 1, max(1, round(held_out * len(order))))
        train[length], test[length] = tuple(order[held:]), tuple(order[:held])
    return Pools(train, test)


def _other_lengths(there: dict[int, int]) -> str:
    """Up to three neighbouring lengths that have enough words, the most words in all, as settings."""
    fitting = [length for length, count in there.items() if length and count >= FEWEST_WORDS]
    runs = [
        range(start, end + 1)
        for start in fitting
        for end in range(start, start + 3)
        if set(range(start, end + 1)) <= set(fitting)
    ]
    if not runs:
        return ""
    best = max(runs, key=lambda run: sum(there[length] for length in run))
    return f", or other lengths: --set fewest_pieces={best[0]} --set most_pieces={best[-1]}"


class Writer:
    """Writes prompts behind one prefix, making sure that the tokenizer reads them as they are meant."""

    def __init__(self, encode: Encode, bos: int | None, prefix: str) -> None:
        self.encode, self.prefix = encode, prefix
        self.head = (() if bos is None else (bos,)) + tuple(encode(prefix))
        self._bos = () if bos is None else (bos,)

    def laid(
        self, units: Sequence[Sequence[tuple[str, Sequence[int]]]]
    ) -> tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None:
        """Text, ids, first and last position of each unit; None where the tokenizer splits it otherwise."""
        text, ids = self.prefix, list(self.head)
        first, last = [], []
        for unit in units:
            for number, (piece, tokens) in enumerate(unit):
                if number == 0:
                    first.append(len(ids))
                text += piece if piece in STOPS else f" {piece}"
                ids += tokens
            last.append(len(ids) - 1)
        if (*self._bos, *self.encode(text)) != tuple(ids):
            return None
        return text, tuple(ids), tuple(first), tuple(last)


def word_prompts(
    arm: str, writer: Writer, chosen: Pools, counts: tuple[int, int], words: int, rng: np.random.Generator
) -> list[Laid]:
    """Prompts of random words: for each word a length, uniform, then a word of that length (the post's design)."""

    def draw(test: bool) -> list[list[tuple[str, Sequence[int]]]]:
        pool = chosen.of(test)
        lengths = rng.choice(sorted(pool), size=words)
        return [[_piece(pool[int(n)][rng.integers(len(pool[int(n)]))])] for n in lengths]

    return _drawn(arm, writer, draw, counts, rng)


def sentence_prompts(
    writer: Writer,
    chosen: Pools,
    stop: tuple[str, Sequence[int]],
    counts: tuple[int, int],
    rng: np.random.Generator,
) -> list[Laid]:
    """Paragraphs of sentences of one to three random words and a full stop."""

    def draw(test: bool) -> list[list[tuple[str, Sequence[int]]]]:
        pool = chosen.of(test)
        paragraph = []
        for size in rng.choice(WORDS_OF_A_SENTENCE, size=SENTENCES):
            lengths = rng.choice(sorted(pool), size=size)
            written = [_piece(pool[int(n)][rng.integers(len(pool[int(n)]))]) for n in lengths]
            paragraph.append([*written, stop])
        return paragraph

    return _drawn("sentences", writer, draw, counts, rng)


def name_prompts(
    writer: Writer,
    names: Pools,
    frames: Sequence[tuple[str, Sequence[int]]],
    templates: tuple[Sequence[tuple[int, ...]], Sequence[tuple[int, ...]]],
    counts: tuple[int, int],
    rng: np.random.Generator,
) -> list[Laid]:
    """Names in templates; a unit is a frame and the name behind it, so that it ends with the name."""

    def draw(test: bool) -> list[list[tuple[str, Sequence[int]]]]:
        pool = [name for group in names.of(test).values() for name in group]
        template = templates[test][int(rng.integers(len(templates[test])))]
        people = [_piece(pool[i]) for i in rng.choice(len(pool), size=NAMES, replace=len(pool) < NAMES)]
        return [[people[0]], *([frames[f], person] for f, person in zip(template, people[1:], strict=True))]

    return _drawn("names", writer, draw, counts, rng)


def split_templates(
    frames: int, rng: np.random.Generator
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Sequences of frames for training and, apart from them, for test."""
    every = list(permutations(range(frames), NAMES - 1))
    order = [every[i] for i in rng.permutation(len(every))]
    held = max(1, len(order) // 5)
    return order[held:], order[:held]


def _piece(word: TokenisedWord) -> tuple[str, Sequence[int]]:
    return word.word, word.ids


def _drawn(
    arm: str,
    writer: Writer,
    draw: Callable[[bool], list[list[tuple[str, Sequence[int]]]]],
    counts: tuple[int, int],
    rng: np.random.Generator,
) -> list[Laid]:
    prompts = []
    for test, count in enumerate(counts):
        for number in range(count):
            units, found = None, None
            for _ in range(_TRIES):
                units = draw(bool(test))
                found = writer.laid(units)
                if found:
                    break
            if not found:
                raise LayerscopeError(
                    "this tokenizer does not read the prompts word by word",
                    found=f"{_TRIES} prompts in a row whose tokens are not those of their words, such as "
                    f"{[piece for unit in units or [] for piece, _ in unit]}",
                    expected="words that keep their tokens next to other words",
                    hint="--words FILE with other words",
                )
            text, ids, first, last = found
            sizes = np.diff([len(writer.head) - 1, *last])
            ends = len(writer.head) - 1 + rng.permutation(sizes).cumsum()
            prompts.append(
                Laid(
                    name=f"{arm}-{'test' if test else 'train'}-{number:04d}",
                    arm=arm,
                    test=bool(test),
                    text=text,
                    ids=ids,
                    start=len(writer.head),
                    first=first,
                    last=last,
                    shuffled=tuple(ends.tolist()),
                )
            )
    return prompts


# -- what the position alone would allow --------------------------------------------------------


def word_joints(lengths: Sequence[int], words: int) -> tuple[np.ndarray, np.ndarray]:
    """P(index, position) of last tokens and of first tokens, for lengths that are all equally likely."""
    law = np.zeros(max(lengths) + 1)
    law[list(lengths)] = 1 / len(lengths)
    return joint_of_ends([law] * words), joint_of_beginnings([law] * words)


def ceiling_with_length(lengths: Sequence[int], words: int) -> float:
    """Accuracy of the best guesser that sees the position and the word's own number of tokens.

    P(index, position, length): the ends of the words before, moved on by the length.
    """
    law = np.zeros(max(lengths) + 1)
    law[list(lengths)] = 1 / len(lengths)
    joints = []
    for length in lengths:
        own = np.zeros(length + 1)
        own[length] = 1
        rows = [joint_of_ends([law] * index + [own])[-1] * (index + 1) for index in range(words)]
        longest = max(len(row) for row in rows)
        joints.append(np.stack([np.pad(row, (0, longest - len(row))) for row in rows]))
    return float(np.mean([joint.max(axis=0).sum() / words for joint in joints]))


def sentence_joint(lengths: Sequence[int], stop: int) -> np.ndarray:
    """P(index, position) of the last token of sentences."""
    law = np.zeros(max(lengths) + 1)
    law[list(lengths)] = 1 / len(lengths)
    powers = [np.array([1.0])]
    for _ in range(max(WORDS_OF_A_SENTENCE)):
        powers.append(np.convolve(powers[-1], law))
    sentence = np.zeros(len(powers[-1]) + stop)
    for size in WORDS_OF_A_SENTENCE:
        sentence[stop : stop + len(powers[size])] += powers[size] / len(WORDS_OF_A_SENTENCE)
    return joint_of_ends([sentence] * SENTENCES)


def name_joint(names: Pools, frames: Sequence[int], templates: Sequence[tuple[int, ...]]) -> np.ndarray:
    """P(index, position) of the last token of names, over held-out templates and names.

    Names of one prompt differ from one another, which makes their lengths depend on one another a
    little; that is left out here.
    """
    sizes = [length for length, group in names.test.items() for _ in group]
    law = np.bincount(sizes) / len(sizes)
    shifted = {size: np.concatenate([np.zeros(size), law]) for size in set(frames)}
    joints = [joint_of_ends([law, *(shifted[frames[f]] for f in template)]) for template in templates]
    whole = np.zeros((NAMES, max(joint.shape[1] for joint in joints)))
    for joint in joints:
        whole[:, : joint.shape[1]] += joint / len(joints)
    return whole
