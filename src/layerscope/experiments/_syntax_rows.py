"""The rows of syntax probes: which words are read, what is asked about each, and what words alone tell."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.experiments._contract import WorkItem
from layerscope.experiments._coordinates import text_coordinate
from layerscope.maths.probe_scores import backed_off, control_labels, label_frequencies
from layerscope.results.schema import quantity
from layerscope.text.tokenised_words import TokenisedSentence

SENTENCES_PER_ITEM = 64
FIELDS = {"part of speech": "upos", "fine part of speech": "xpos", "relation": "deprel", "genre": "genre"}
NEXT = "next "
_TEST_SHARE = 0.3
_FEWEST_DOCUMENTS = 4
_LAST_POSITION = 31
_AT_A_TIME = 5


class SentencesItem(WorkItem):
    """Some sentences; for each the draws of training documents it belongs to, or −1: it is tested on."""

    sentences: tuple[TokenisedSentence, ...]
    draws: tuple[int, ...]


# -- which sentences ----------------------------------------------------------------------------------


def chosen_sentences(
    treebank: Sequence[TokenisedSentence],
    *,
    seed: int,
    draws: int,
    train_words: int,
    test_words: int,
    one_to_one: bool,
) -> list[tuple[TokenisedSentence, int]]:
    """Sentences to learn from and to test on, each with its draws as bits, or −1 for tested on; in file order.

    A treebank's own parts are kept (train, and test or else dev); one without parts is split by document.
    Documents are taken in an order of chance, five sentences of each at a time until there are enough words:
    many documents make better intervals than few long ones.

    Raises:
        LayerscopeError: too few documents to learn from some and test on others, or no sentence left.
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
            size=len(some),
            sentences=tuple(sentence for sentence, _ in some),
            draws=tuple(draws for _, draws in some),
        )


# -- what is known about them -------------------------------------------------------------------------


def words_of(item: SentencesItem, *, final_punctuation: bool, subtypes: bool) -> xr.Dataset:
    """Everything about some sentences that a probe can be asked, and their token ids."""
    sentences = [tokenised.sentence for tokenised in item.sentences]
    relations = [relation if subtypes else relation.split(":")[0] for s in sentences for relation in s.deprel]
    coarse = [tag for s in sentences for tag in _tags(s.upos, final_punctuation)]
    fine = [tag for s in sentences for tag in _tags(s.xpos, final_punctuation and any(s.xpos), s.upos)]
    numbers = {
        "sentence_tokens": ([len(t.tokens) for t in item.sentences], "sentence", "tokens"),
        "sentence_words": ([len(s.spans) for s in sentences], "sentence", "words"),
        "sentence_draws": (item.draws, "sentence", "draws as bits, −1: tested on"),
        "token_id": ([i for t in item.sentences for i in t.tokens.ids], "token", "token id"),
        "first": ([p for t in item.sentences for p in t.first], "word", "position of the first token"),
        "last": ([p for t in item.sentences for p in t.last], "word", "position of the last token"),
    }
    texts = {
        "sentence": ([s.name for s in sentences], "sentence", "sentence"),
        "sentence_document": ([s.document for s in sentences], "sentence", "document"),
        "sentence_genre": ([s.genre for s in sentences], "sentence", "genre of the document"),
        "form": ([form for s in sentences for form in s.forms], "word", "the word as it is written"),
        "upos": (coarse, "word", "part of speech"),
        "xpos": (fine, "word", "fine part of speech"),
        "deprel": (relations, "word", "relation to the head"),
        "left_out": ([why for t in item.sentences for why in t.left_out], "word", "why it is left out"),
    }
    return xr.Dataset(
        {
            name: quantity(np.asarray(values, dtype=np.int64), dimension, what)
            for name, (values, dimension, what) in numbers.items()
        },
        coords={
            name: text_coordinate(values, dimension, what)
            for name, (values, dimension, what) in texts.items()
        },
    )


def _tags(tags: Sequence[str], final: bool, upos: Sequence[str] | None = None) -> list[str]:
    """Tags, with a label of its own for the punctuation that ends the sentence, as in the grammar post."""
    found = list(tags)
    if final and found and (upos or tags)[-1] == "PUNCT":
        found[-1] = "FINAL"
    return found


# -- what is asked ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One question about words.

    Attributes:
        name: such as "relation" or "next relation".
        field: the column that answers it.
        shift: 0 for the word that is read, 1 for the next one.
        classes: labels that are frequent enough, in alphabetical order.
        left_out: labels that are not, with the words they have.
    """

    name: str
    field: str
    shift: int
    classes: tuple[str, ...]
    left_out: dict[str, int]


@dataclass(frozen=True, eq=False)
class Design:
    """Rows and tasks of all fits.

    Attributes:
        tasks: in order.
        labels: of every word in every task [task word]; −1 where it has none, or a rare one.
        types: the word type of each word.
        next_types: of the word after it; "" at a sentence's end.
        position: number of the word in its sentence, from 0.
        document: number of its document.
        documents: names of documents.
        draws: as bits, −1 for words that are tested on.
        rows: of each word, the row of its first and last token among all tokens [2 word], −1: left out.
        tokens: token ids of each sentence.
    """

    tasks: tuple[Task, ...]
    labels: np.ndarray
    types: np.ndarray
    next_types: np.ndarray
    position: np.ndarray
    document: np.ndarray
    documents: tuple[str, ...]
    draws: np.ndarray
    rows: np.ndarray
    tokens: list[list[int]]

    @property
    def tested(self) -> np.ndarray:
        """Numbers of the words that are tested on."""
        return np.flatnonzero((self.draws < 0) & (self.rows[0] >= 0))

    def learnt(self, draw: int) -> np.ndarray:
        """Numbers of the words that a draw learns from, whole documents together, documents by chance."""
        in_draw = (self.draws >= 0) & ((self.draws >> draw) & 1 > 0) & (self.rows[0] >= 0)
        order = np.random.default_rng(draw).permutation(len(self.documents))
        words = np.flatnonzero(in_draw)
        return words[np.argsort(order[self.document[words]], kind="stable")]

    def control(self, seed: int, draw: int) -> np.ndarray:
        """Labels of the control tasks [task word]: of the type that the task is about."""
        rows = []
        for number, (task, labels) in enumerate(zip(self.tasks, self.labels, strict=True)):
            types = self.next_types if task.shift else self.types
            drawn = np.random.SeedSequence([seed, draw, number]).generate_state(1)[0]
            rows.append(control_labels(types, labels, len(task.classes), seed=int(drawn)))
        return np.stack(rows)


Next = Literal[0, 1]


def design_of(words: xr.Dataset, *, tasks: Sequence[str], next_word: bool, fewest: int) -> Design:
    """The design that follows from the chosen words.

    Raises:
        LayerscopeError: no task has two labels with enough words to learn from.
    """
    per_sentence = words.sentence_words.values
    sentence = np.repeat(np.arange(len(per_sentence)), per_sentence)
    starts = np.cumsum(per_sentence) - per_sentence
    token_ends = np.cumsum(words.sentence_tokens.values)
    token_starts = token_ends - words.sentence_tokens.values
    names, document = np.unique(words.sentence_document.values, return_inverse=True)
    ends = np.append(sentence[1:] != sentence[:-1], True) if len(sentence) else np.zeros(0, bool)
    draws = words.sentence_draws.values[sentence]
    pieces = np.stack([words["first"].values, words["last"].values])
    types = words.form.values
    following = np.where(ends, "", np.roll(types, -1))
    columns = {
        "genre": words.sentence_genre.values[sentence],
        **{name: words[name].values for name in ("upos", "xpos", "deprel")},
    }
    learnt = (draws > 0) & (pieces[0] >= 0)
    found = []
    for name in tasks:
        for shift in (0, 1) if next_word and name != "genre" else (0,):
            asked = np.where(ends, "", np.roll(columns[FIELDS[name]], -1)) if shift else columns[FIELDS[name]]
            task = _task(name, shift, asked, learnt, words.sentence_draws.values[sentence], fewest)
            if task is not None:
                place = {label: number for number, label in enumerate(task.classes)}
                found.append((task, [place.get(str(label), -1) for label in asked]))
    if not found:
        raise LayerscopeError(
            "no question can be asked of this treebank",
            found=f"{int(learnt.sum())} words to learn from, and no two labels with {fewest} of them",
            expected=f"at least two labels of a task with at least {fewest} words each",
            hint="a larger treebank, --set train_words=N, or --set fewest=5",
        )
    return Design(
        tasks=tuple(task for task, _ in found),
        labels=np.array([labels for _, labels in found]),
        types=types,
        next_types=following,
        position=np.arange(len(sentence)) - starts[sentence],
        document=document.reshape(-1)[sentence],
        documents=tuple(str(name) for name in names),
        draws=draws,
        rows=np.where(pieces >= 0, pieces + token_starts[sentence], -1),
        tokens=[words.token_id.values[a:b].tolist() for a, b in zip(token_starts, token_ends, strict=True)],
    )


def _task(
    name: str, shift: int, asked: np.ndarray, learnt: np.ndarray, draws: np.ndarray, fewest: int
) -> Task | None:
    """The task, if it has two labels; a label needs enough words in every draw, and one in the test."""
    asked = asked.astype(str)
    number = int(draws.max(initial=0)).bit_length()
    if name == "genre" and len(set(asked.tolist())) < 2:
        return None
    counts: dict[str, int] = {}
    for label in sorted(set(asked.tolist()) - {""}):
        here = (asked == label) & learnt
        counts[label] = min((int((here & (draws >> d & 1 > 0)).sum()) for d in range(number)), default=0)
    classes = tuple(label for label, count in counts.items() if count >= fewest)
    if len(classes) < 2:
        return None
    return Task(
        name=f"{NEXT if shift else ''}{name}",
        field=FIELDS[name],
        shift=shift,
        classes=classes,
        left_out={label: int((asked == label).sum()) for label in counts if label not in classes},
    )


# -- what words alone tell ----------------------------------------------------------------------------


def baselines(design: Design, draw: int) -> dict[str, np.ndarray]:
    """Log probabilities of the true label, and whether the likeliest is right, without any state.

    Returns:
        "type" and "type and position", each [2 task tested]: −log p in nats, and 1 where right; NaN where
        a word has no label.
    """
    learnt, tested = design.learnt(draw), design.tested
    found: dict[str, list[Any]] = {"type": [], "type and position": []}
    positions = np.minimum(design.position, _LAST_POSITION)
    pairs = list(zip(design.types.tolist(), positions.tolist(), strict=True))
    for task, labels in zip(design.tasks, design.labels, strict=True):
        prior = label_frequencies(labels[learnt], len(task.classes))
        types = design.types.tolist()
        by_type = backed_off(
            [types[w] for w in learnt], labels[learnt], [types[w] for w in tested], prior[None]
        )
        by_both = backed_off([pairs[w] for w in learnt], labels[learnt], [pairs[w] for w in tested], by_type)
        found["type"].append(scored(by_type, labels[tested]))
        found["type and position"].append(scored(by_both, labels[tested]))
    return {name: np.stack(rows, axis=1) for name, rows in found.items()}


def scored(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """−log p of each label in nats, and 1 where the likeliest is right [2 row]; NaN where there is none."""
    known = labels >= 0
    picked = np.take_along_axis(probabilities, np.maximum(labels, 0)[:, None], axis=1)[:, 0]
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    return np.where(known, np.stack([-np.log(picked), right]), np.nan)
