"""What experiments that fit probes share: texts read into the cache of states beforehand, depths fitted together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr

from layerscope.contract import WorkItem
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.facts import ModelFacts
    from layerscope.models.layered import LayeredModel

Weights = Literal["trained", "untrained"]
Texts = Sequence[Sequence[int]]
"""Token ids of each text, in order."""


class GroupItem(WorkItem):
    """Some texts of a kind to be read into the cache: numbers of the first and the one after the last."""

    weights: Weights
    kind: str
    start: int
    stop: int
    tokens_per_pass: int


def model_of(model: LayeredModel, weights: Weights, seed: int) -> LayeredModel:
    """The model itself, or its untrained twin."""
    from layerscope.models.untrained import kept_twin

    return model if weights == "trained" else kept_twin(model, seed)


def group_items(
    texts: Texts, weights: Weights, kind: str, tokens_per_pass: int = 2048, *, facts: ModelFacts
) -> Iterator[GroupItem]:
    """One item for each group of texts.

    Args:
        texts: the texts of this kind.
        weights: which model reads them.
        kind: what a person calls the texts, such as "sentences".
        tokens_per_pass: bound on rows times tokens of one forward pass.
        facts: of the model.
    """
    from layerscope import runs

    for group in runs.groups([len(ids) for ids in texts]):
        yield GroupItem(
            name=f"{weights}, {kind} {group.start + 1} to {group.stop}",
            size=facts.operations(sum(len(texts[text]) for text in group)),
            weights=weights,
            kind=kind,
            start=group.start,
            stop=group.stop,
            tokens_per_pass=tokens_per_pass,
        )


def read_group(model: LayeredModel, item: GroupItem, texts: Texts) -> xr.Dataset:
    """Read a group into the cache, and say how long its states are (an infinite one shows here).

    Args:
        model: the model of the item's weights.
        item: which group.
        texts: all texts of the item's kind.
    """
    from layerscope import runs
    from layerscope.maths.similarity import norm

    cache = runs.StateCache(model, tokens_per_pass=item.tokens_per_pass)
    length = cache.states(texts[item.start : item.stop], model.n_layers).float()
    return xr.Dataset(
        {
            "group_tokens": quantity(np.array([len(length)]), "group", "tokens of the group"),
            "group_norm": quantity(
                np.array([float(norm(length).mean())]), "group", "mean length of the last states"
            ),
        },
        coords={
            "group": number_coordinate([item.start], "group", "first text of the group"),
            "group_weights": text_coordinate([item.weights], "group", "model"),
            "group_kind": text_coordinate([item.kind], "group", "which texts"),
        },
    )


def depth_chunks(depths: int, cases: int, width: int, *, most_bytes: int = 2**28) -> list[range]:
    """Depths that are fitted together, so that their states fit in memory.

    Args:
        depths: how many there are, n_layers + 1.
        cases: states of each depth.
        width: entries of a state, of four bytes each.
        most_bytes: of the states of one chunk; a single depth may have more.
    """
    size = max(1, most_bytes // (4 * cases * width))
    return [range(start, min(start + size, depths)) for start in range(0, depths, size)]


def scored(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """−log p of each label in nats, and 1 where the likeliest is right [2 row]; NaN where there is none."""
    known = labels >= 0
    picked = np.take_along_axis(probabilities, np.maximum(labels, 0)[:, None], axis=1)[:, 0]
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    return np.where(known, np.stack([-np.log(picked), right]), np.nan)
