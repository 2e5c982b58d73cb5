"""Which sentences of a treebank probes are trained on, and which they are tested on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from layerscope.contract import OPERATIONS_A_SECOND, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.text.tokenised_words import TokenisedSentence

SENTENCES_PER_ITEM = 64
_TEST_SHARE = 0.3
_FEWEST_DOCUMENTS = 4
_AT_A_TIME = 5


class SentencesItem(WorkItem):
    """Some sentences; for each the draws of training documents it belongs to, or −1: it is tested on."""

    sentences: tuple[TokenisedSentence, ...]
    draws: tuple[int, ...]


def chosen_sentences(
    treebank: Sequence[TokenisedSentence],
    *,
    seed: int,
    draws: int,
    train_words: int,
    test_words: int,
    one_to_one: bool,
) -> list[tuple[TokenisedSentence, int]]:
    """Sentences to train on and to test on, each with its draws as bits, or −1 for tested on; in file order.

    A treebank's own parts are kept (train, and test or else dev); one without parts is split by document.
    Documents are taken in an order of chance, five sentences of each at a time until there are enough words:
    many documents make better intervals than few long ones.

    Raises:
        LayerscopeError: too few documents to train on some and test on others, or no sentence left.
    """
    usable = [s for s in treebank if (_one_to_one(s) if one_to_one else any(not why for why in s.left_out))]
    learnt, tested = _parts(usable, seed)
    marks: dict[str, int] = {}
    for sentence in _enough(tested, test_words, seed, "test"):
        marks[sentence.name] = -1
    for draw in range(draws):
        for sentence in _enough(learnt, train_words, seed, f"train {draw}"):
            marks[sentence.name] = marks.get(sentence.name, 0) | 1 << draw
    return [(sentence, marks[sentence.name]) for sentence in usable if sentence.name in marks]


def _one_to_one(sentence: TokenisedSentence) -> bool:
    return not any(sentence.left_out) and sentence.first == sentence.last


def _parts(
    sentences: Sequence[TokenisedSentence], seed: int
) -> tuple[list[TokenisedSentence], list[TokenisedSentence]]:
    by_split: dict[str, list[TokenisedSentence]] = {}
    for sentence in sentences:
        by_split.setdefault(sentence.sentence.split, []).append(sentence)
    tested = by_split.get("test") or by_split.get("dev")
    if by_split.get("train") and tested:
        return by_split["train"], tested
    documents = sorted({sentence.sentence.document for sentence in sentences})
    if len(documents) < _FEWEST_DOCUMENTS:
        raise LayerscopeError(
            "this treebank cannot be split by document",
            found=f"{len(documents)} documents with words that can be read",
            expected=f"parts named train and test, or at least {_FEWEST_DOCUMENTS} documents (# newdoc)",
            hint="a larger treebank; or read words of any token length, if kept_words=one_to_one is set",
        )
    random.Random(f"{seed} split").shuffle(documents)
    held_out = set(documents[: max(1, round(_TEST_SHARE * len(documents)))])
    return (
        [sentence for sentence in sentences if sentence.sentence.document not in held_out],
        [sentence for sentence in sentences if sentence.sentence.document in held_out],
    )


def _enough(
    sentences: Sequence[TokenisedSentence], words: int, seed: int, purpose: str
) -> Iterator[TokenisedSentence]:
    by_document: dict[str, list[TokenisedSentence]] = {}
    for sentence in sentences:
        by_document.setdefault(sentence.sentence.document, []).append(sentence)
    order = sorted(by_document)
    random.Random(f"{seed} {purpose}").shuffle(order)
    held, longest = 0, max(map(len, by_document.values()), default=0)
    for start in range(0, longest, _AT_A_TIME):
        for document in order:
            for sentence in by_document[document][start : start + _AT_A_TIME]:
                if held >= words:
                    return
                held += sum(not why for why in sentence.left_out)
                yield sentence


def sentence_items(chosen: Sequence[tuple[TokenisedSentence, int]]) -> Iterator[SentencesItem]:
    """The chosen sentences in pieces that a part can hold."""
    for start in range(0, len(chosen), SENTENCES_PER_ITEM):
        some = chosen[start : start + SENTENCES_PER_ITEM]
        yield SentencesItem(
            name=f"sentences {start + 1} to {start + len(some)}",
            size=len(some) * 3e-4 * OPERATIONS_A_SECOND,
            sentences=tuple(sentence for sentence, _ in some),
            draws=tuple(draws for _, draws in some),
        )
