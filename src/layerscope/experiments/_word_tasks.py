"""What word_position_probe asks of which states, and the fitting of its probes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.experiments._coordinates import depth_coordinate, number_coordinate, text_coordinate
from layerscope.experiments._word_design import Laid
from layerscope.maths.arrays import divide
from layerscope.maths.class_contrasts import contrast_within_cells
from layerscope.maths.probes import fit_logistic
from layerscope.results.schema import quantity
from layerscope.results.words import stored

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


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


class States:
    """States of prompts through the cache, one depth at a time."""

    def __init__(self, model: LayeredModel, prompts: Sequence[Laid], tokens_per_pass: int) -> None:
        self._cache = runs.StateCache(model, tokens_per_pass=tokens_per_pass)
        self._texts = [prompt.ids for prompt in prompts]
        self._starts = np.cumsum([0, *(len(text) for text in self._texts)])

    def every(self, depth: int) -> np.ndarray:
        """The residual stream of all tokens, text after text, in float32."""
        parts = runs.groups([len(text) for text in self._texts])
        states = [self._cache.states([self._texts[i] for i in part], depth).float().numpy() for part in parts]
        return np.concatenate(states)

    def at(self, every: np.ndarray, cases: Cases) -> np.ndarray:
        """States of some cases."""
        return np.asarray(every[self._starts[cases.rows] + cases.positions])


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


# -- fitting --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class IndexProbe:
    """A linear map from a state to the index of its unit.

    Attributes:
        slopes: [width column]; one column for each index, or two (no, yes) where each has a probe of its own.
        bias: [column].
        apart: whether each index has a probe of its own.
        converged: whether the fit reached its tolerance.
    """

    slopes: np.ndarray
    bias: np.ndarray
    apart: bool
    converged: bool

    def probabilities(self, states: np.ndarray) -> np.ndarray:
        """[case index], rows that sum to 1; probes of one index each are normalised over the indices."""
        logits = states.astype(np.float64) @ self.slopes + self.bias
        if self.apart:
            yes = 1 / (1 + np.exp(logits[:, 0::2] - logits[:, 1::2]))
            return np.asarray(divide(yes, yes.sum(axis=1, keepdims=True)))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def fitted(states: np.ndarray, labels: np.ndarray, settings: Any, device: Any = "cpu") -> list[IndexProbe]:
    """Probes for the index of the unit, one for each entry of the batch (depths, places), fitted together.

    Args:
        states: [batch case width].
        labels: [case], 0 .. the number of indices − 1; the same for the whole batch.
        settings: `penalty`, `scheme` and `scale` of the experiment.
        device: where to fit.
    """
    import torch

    apart = settings.scheme == "one-vs-rest"
    n_classes = int(labels.max()) + 1
    centred = states - states.mean(axis=1, keepdims=True)
    factor = np.ones(len(states), dtype=states.dtype)
    if settings.scale == "whole":
        spread = np.sqrt((centred.astype(np.float64) ** 2).mean(axis=(1, 2)))
        factor = np.where(spread > 0, spread, 1.0).astype(states.dtype)
    tasks = np.stack([labels == index for index in range(n_classes)]) if apart else labels[None]
    probes = fit_logistic(
        torch.from_numpy(centred / factor[:, None, None]).to(device),
        torch.from_numpy(tasks.astype(np.int64)),
        [2] * n_classes if apart else [n_classes],
        l2=settings.penalty,
        standardise=settings.scale == "entries",
    )
    weights, bias, centre, scale, converged = (
        part.cpu().double().numpy()
        for part in (probes.weights, probes.bias, probes.centre, probes.scale, probes.converged)
    )
    found = []
    for place, mean in enumerate(states.mean(axis=1)):
        slopes = weights[place] / scale[place][:, None] / factor[place]
        shift = bias[place] - (mean.astype(np.float64) + centre[place] * factor[place]) @ slopes
        found.append(IndexProbe(slopes, shift, apart, bool(converged[place].all())))
    return found


def depth_chunks(depths: int, cases: int, width: int, *, most_bytes: int = 2**28) -> list[range]:
    """Depths that are fitted together, so that their states fit in memory."""
    size = max(1, most_bytes // (4 * cases * width))
    return [range(start, min(start + size, depths)) for start in range(0, depths, size)]


def probe_variables(probes: Sequence[IndexProbe], vectors: dict[str, np.ndarray]) -> xr.Dataset:
    """Probes of all depths, and directions, as a Dataset that `probe_of` reads back."""
    slopes = np.stack([probe.slopes for probe in probes])
    return xr.Dataset(
        {
            "slopes": quantity(slopes, "depth entry column", "slopes of the probe"),
            "bias": quantity(np.stack([probe.bias for probe in probes]), "depth column", "bias of the probe"),
            "converged": quantity(
                np.array([probe.converged for probe in probes]),
                "depth",
                "whether the fit reached its tolerance",
            ),
            "later": quantity(vectors["later"], "entry", "way to the next index"),
            "earlier": quantity(vectors["earlier"], "entry", "way to the index before"),
            "control": quantity(vectors["control"], "draw entry", "differences of states of equal index"),
        },
        coords={
            "depth": depth_coordinate(len(probes) - 1),
            "entry": number_coordinate(range(slopes.shape[1]), "entry", "entry of the state"),
            "column": number_coordinate(range(slopes.shape[2]), "column", "column of the probe"),
            "draw": number_coordinate(range(len(vectors["control"])), "draw", "draw"),
        },
        attrs={"apart": int(probes[0].apart)},
    )


def probe_of(saved: xr.Dataset, depth: int) -> IndexProbe:
    """The probe of one depth, from what `probe_variables` saved."""
    return IndexProbe(
        slopes=saved.slopes.values[depth],
        bias=saved.bias.values[depth],
        apart=bool(saved.attrs["apart"]),
        converged=bool(saved.converged.values[depth]),
    )


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


def directions(
    states: np.ndarray, cases: Cases, index: int, rng: np.random.Generator, draws: int
) -> dict[str, np.ndarray]:
    """Where states lie whose index is one more or one less, and differences that have nothing to do with it.

    Returns:
        "later" and "earlier" [width], by class means within cells of equal position; "control"
        [draw width]: differences of two states of equal index at equal position.
    """
    kept = {"labels": cases.labels, "cells": cases.offsets}
    found = {
        name: contrast_within_cells(states, first=index, second=other, **kept)
        for name, other in (("later", index + 1), ("earlier", index - 1))
    }
    kinds = cases.labels * 10_000 + cases.offsets
    pairs = list(_pairs_alike(kinds, rng, draws))
    found["control"] = np.stack([states[a] - states[b] for a, b in pairs])
    return found


def _pairs_alike(kinds: np.ndarray, rng: np.random.Generator, draws: int) -> Iterator[tuple[int, int]]:
    shared = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    shared = [rows for rows in shared if len(rows) > 1]
    weights = np.array([len(rows) for rows in shared], dtype=float)
    for kind in rng.choice(len(shared), size=draws, p=weights / weights.sum()):
        a, b = rng.choice(shared[kind], size=2, replace=False)
        yield int(a), int(b)


def seeded(settings: Any, *names: object) -> np.random.Generator:
    """A numpy generator of a named stream of the run's seed."""
    return np.random.default_rng(runs.stream(settings.seed, *names).initial_seed())
