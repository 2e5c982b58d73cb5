"""What is asked about which words: the tasks, their labels, and the rows of all fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.maths.probe_scores import control_heads, control_labels

FIELDS = {
    "part of speech": "upos",
    "fine part of speech": "xpos",
    "relation": "deprel",
    "head": "head",
    "genre": "genre",
}
NEXT = "next "


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
        behind: words of its sentence behind it.
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
    behind: np.ndarray
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
        """Labels of the control tasks [task word], by the type of the word that the task is about."""
        rows = []
        for number, (task, labels) in enumerate(zip(self.tasks, self.labels, strict=True)):
            types = self.next_types if task.shift else self.types
            drawn = int(np.random.SeedSequence([seed, draw, number]).generate_state(1)[0])
            if task.field == "head":
                before, behind = self.position + task.shift, self.behind - task.shift
                places = control_heads(types, before, behind, seed=drawn)
                dealt = _numbered(np.array([head_place(int(place)) for place in places]), task.classes)
                rows.append(np.where(labels >= 0, dealt, -1))
            else:
                rows.append(control_labels(types, labels, len(task.classes), seed=drawn))
        return np.stack(rows)


def design_of(words: xr.Dataset, *, tasks: Sequence[str], next_word: bool, fewest: int) -> Design:
    """The design that follows from the chosen words.

    Raises:
        LayerscopeError: no task has two labels with enough words to learn from, or none is asked of test words.
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
    columns = {
        "genre": words.sentence_genre.values[sentence],
        **{name: words[name].values for name in ("upos", "xpos", "deprel", "head")},
    }
    found = _asked_of(tasks, columns, ends, draws, pieces[0] >= 0, next_word=next_word, fewest=fewest)
    return Design(
        tasks=tuple(task for task, _ in found),
        labels=np.stack([labels for _, labels in found]),
        types=types,
        next_types=_of_next(types, ends),
        position=np.arange(len(sentence)) - starts[sentence],
        behind=(starts + per_sentence - 1)[sentence] - np.arange(len(sentence)),
        document=document.reshape(-1)[sentence],
        documents=tuple(str(name) for name in names),
        draws=draws,
        rows=np.where(pieces >= 0, pieces + token_starts[sentence], -1),
        tokens=[words.token_id.values[a:b].tolist() for a, b in zip(token_starts, token_ends, strict=True)],
    )


def _asked_of(
    names: Sequence[str],
    columns: Mapping[str, np.ndarray],
    ends: np.ndarray,
    draws: np.ndarray,
    read: np.ndarray,
    *,
    next_word: bool,
    fewest: int,
) -> list[tuple[Task, np.ndarray]]:
    """Tasks that can be asked, with the label of every word; about the next word too, but for a genre.

    Args:
        names: what is asked about.
        columns: what the treebank says of every word.
        ends: whether a word ends its sentence.
        draws: as bits, −1 for words that are tested on.
        read: whether a word is not left out.
        next_word, fewest: see `design_of`.
    """
    learnt, tested = (draws > 0) & read, (draws < 0) & read
    found, unseen = [], []
    for name in names:
        for shift in (0, 1) if next_word and name != "genre" else (0,):
            column = columns[FIELDS[name]]
            asked = _of_next(column, ends) if shift else column
            task = _task(name, shift, asked, learnt, draws, fewest)
            if task is None:
                continue
            labels = _numbered(asked.astype(str), task.classes)
            if (labels[tested] >= 0).any():
                found.append((task, labels))
            else:
                unseen.append((task, sorted(set(asked[tested].tolist()) - {""})))
    if not found:
        raise _nothing_to_ask(int(learnt.sum()), unseen, fewest)
    return found


def _of_next(column: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """What is said of the next word; "" at a sentence's end."""
    return np.where(ends, "", np.roll(column, -1))


def _nothing_to_ask(
    learnt: int, unseen: Sequence[tuple[Task, Sequence[str]]], fewest: int
) -> LayerscopeError:
    """Why no task is left: too few words of a label, or no label that both parts have."""
    found = f"{learnt} words to learn from, and no two labels with {fewest} of them"
    expected = f"at least two labels of a task with at least {fewest} words each"
    if unseen:
        task, tested = unseen[0]
        sides = (", ".join([*those[:5], *["…"] * (len(those) > 5)]) for those in (task.classes, tested))
        found = "{}: to learn from, {}; to test on, {}".format(task.name, *sides)
        expected = "tested words with labels that are learnt"
    return LayerscopeError(
        "the labels of the tested words are unseen in training"
        if unseen
        else "no question can be asked of this treebank",
        found=found,
        expected=expected,
        hint="a treebank whose parts are annotated alike"
        if unseen
        else "a larger treebank, --set train_words=N, or --set fewest=5",
    )


def _numbered(asked: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The number of each label among the classes, −1 for another."""
    found = np.full(len(asked), -1)
    for number, label in enumerate(classes):
        found[asked == label] = number
    return found


def _task(
    name: str, shift: int, asked: np.ndarray, learnt: np.ndarray, draws: np.ndarray, fewest: int
) -> Task | None:
    """The task, if it has two labels; a label needs enough words in every draw."""
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


def head_place(words: int) -> str:
    """The label of a head so many words to the right (negative: to the left); 0 is the root, which has none."""
    if words == 0:
        return "root"
    far = abs(words)
    return f"{far if far < 3 else '3 to 5' if far < 6 else '6 or more'} {'right' if words > 0 else 'left'}"
