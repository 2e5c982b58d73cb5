"""What word_position_probe asks of which states, and what it keeps of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import depth_coordinate, number_coordinate, text_coordinate
from layerscope.experiments.word_position_probe.items.prompts import Laid, prompts_of
from layerscope.results.combine import concatenate
from layerscope.results.escaping import stored
from layerscope.results.schema import quantity


@dataclass(frozen=True)
class Task:
    """One question to the states.

    Attributes:
        train, test: arms whose training and test prompts are used.
        place: which token of a unit is read: "first", "last", "shuffled".
        twin: whether the states are the untrained twin's.
        says: what a person calls it.
    """

    train: str
    test: str
    place: str
    twin: bool
    says: str


TASKS = {
    "last": Task("anchored", "anchored", "last", False, "word, last piece"),
    "first": Task("anchored", "anchored", "first", False, "word, first piece"),
    "shuffled": Task("anchored", "anchored", "shuffled", False, "shuffled boundaries"),
    "untrained": Task("anchored", "anchored", "last", True, "untrained twin"),
    "types": Task("anchored", "anchored", "last", False, "bag of token types, no model"),
    "unanchored": Task("unanchored", "unanchored", "last", False, "word, prefix without anchor"),
    "onto unanchored": Task("anchored", "unanchored", "last", False, "trained with anchor, tested without"),
    "onto anchored": Task("unanchored", "anchored", "last", False, "trained without anchor, tested with"),
    "sentences": Task("sentences", "sentences", "last", False, "sentence of a paragraph"),
    "names": Task("names", "names", "last", False, "name, across templates"),
}
"""By name; "last" is the main one."""

ANY_DEPTH = (-1,)
"""The depth of guesses that rest on no model: they stand for every depth."""


@dataclass(frozen=True)
class Cases:
    """Tokens that a probe is trained or tested on.

    Attributes:
        rows: index of each case's prompt among the prompts given.
        positions: its token in that prompt.
        labels: index of its unit.
        offsets: its token counted from the end of the prefix.
        sizes: tokens of its unit.
    """

    rows: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray


def cases_of(prompts: Sequence[Laid], place: str) -> Cases:
    """One case for each unit of each prompt."""
    places = [getattr(prompt, place) for prompt in prompts]
    sizes = [len(row) for row in places]
    positions = np.array([position for row in places for position in row], dtype=np.int64)
    starts = np.repeat([prompt.start for prompt in prompts], sizes)
    return Cases(
        rows=np.repeat(np.arange(len(prompts)), sizes),
        positions=positions,
        labels=np.array([unit for size in sizes for unit in range(size)], dtype=np.int64),
        offsets=positions - starts,
        sizes=np.concatenate(
            [np.diff([p.start - 1, *(p.shuffled if place == "shuffled" else p.last)]) for p in prompts]
        ),
    )


def bags(
    train: Sequence[Laid], test: Sequence[Laid], here: Cases, there: Cases, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What may be known of a case without a model: its position, and how often each token type has come.

    Types that no training prompt holds count together as unknown ones. So that the probe learns what an
    unknown one is worth, each training prompt takes a random half of its types for unknown.

    Returns:
        [case feature] for training and for test.
    """
    known = np.unique([token for prompt in train for token in prompt.ids[prompt.start :]])
    column = {int(token): place for place, token in enumerate(known)}
    hidden = [set(known[rng.random(len(known)) < 0.5].tolist()) for _ in train]
    furthest = int(max(here.offsets.max(), there.offsets.max()))

    def counted(prompts: Sequence[Laid], cases: Cases, unseen: Sequence[set[int]]) -> np.ndarray:
        counts = np.zeros((len(cases.rows), len(known) + 1 + furthest + 1), dtype=np.float32)
        for case, (row, position) in enumerate(zip(cases.rows, cases.positions, strict=True)):
            prompt = prompts[row]
            for token in prompt.ids[prompt.start : position + 1]:
                place = len(known) if token in unseen[row] else column.get(token, len(known))
                counts[case, place] += 1
            counts[case, len(known) + 1 + cases.offsets[case]] = 1
        return counts

    return counted(train, here, hidden), counted(test, there, [set()] * len(test))


def guesses(task: str, depths: Sequence[int], probabilities: np.ndarray, units: int) -> xr.Dataset:
    """A part of the stage `scores`: what [case depth class] probabilities say, depth after depth along `token`."""
    cases, n_depths, classes = probabilities.shape
    padded = np.zeros((n_depths * cases, units), dtype=np.float32)
    padded[:, :classes] = np.moveaxis(probabilities, 1, 0).reshape(-1, classes)
    number = list(TASKS).index(task)
    return xr.Dataset(
        {"guess": quantity(padded, "token unit", "probability that the probe gives each index")},
        coords={
            "guess_task": number_coordinate([number] * len(padded), "token", "number of the task"),
            "guess_depth": number_coordinate(np.repeat(depths, cases), "token", "depth, or -1 for any"),
        },
    )


def gathered(scores: xr.Dataset, design: xr.Dataset, depths: int) -> xr.Dataset:
    """The guesses of all parts of the stage `scores`, case by case with all depths, and what the cases are.

    Raises:
        ValueError: a task that has not been asked at every depth (a mistake of the stage).
    """
    parts = []
    for number, (name, task) in enumerate(TASKS.items()):
        rows = np.flatnonzero(scores.guess_task.values == number)
        if not len(rows):
            continue
        prompts = prompts_of(design, task.test, test=True)
        cases = cases_of(prompts, task.place)
        at = scores.guess_depth.values[rows].reshape(-1, len(cases.rows))[:, 0]
        told = scores.guess.values[rows].reshape(len(at), len(cases.rows), -1)
        if tuple(at) == ANY_DEPTH:
            told = np.repeat(told, depths, axis=0)
        elif at.tolist() != list(range(depths)):
            raise ValueError(f"the task {name} was asked at depths {at.tolist()}, not at all {depths}")
        parts.append(judged(name, prompts, cases, np.moveaxis(told, 0, 1), told.shape[2]))
    return concatenate(parts)


def judged(
    task: str, prompts: Sequence[Laid], cases: Cases, probabilities: np.ndarray, units: int
) -> xr.Dataset:
    """Guesses for test cases along `token`: [case depth class] probabilities to what is kept of them."""
    n_classes = probabilities.shape[2]
    padded = np.zeros((*probabilities.shape[:2], units), dtype=np.float32)
    padded[..., :n_classes] = probabilities
    return xr.Dataset(
        {
            "probability": quantity(
                padded, "token depth unit", "probability that the probe gives each index"
            ),
        },
        coords={
            "case_task": text_coordinate([task] * len(cases.rows), "token", "task"),
            "case_prompt": xr.Variable(
                ("token",),
                np.array([stored(prompts[row].name) for row in cases.rows]),
                {"long_name": "prompt of the case"},
            ),
            "case_position": number_coordinate(cases.offsets, "token", "tokens behind the end of the prefix"),
            "case_size": number_coordinate(cases.sizes, "token", "tokens of the unit"),
            "case_index": number_coordinate(cases.labels, "token", "true index of the unit"),
            "depth": depth_coordinate(probabilities.shape[1] - 1),
            "unit": number_coordinate(range(units), "unit", "index of the unit, from 0"),
        },
    )
