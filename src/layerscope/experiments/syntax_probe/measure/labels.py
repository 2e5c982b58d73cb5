"""Labels of whole documents, decoded from single tokens: at which depth, and how long after they were given?

A passage's genre, and what else its file says of it in a column of its own (a language, a register), is there
from its first token; a label that a passage announces (a dialect) from the word that says it. At tokens 1, 2,
4, 8, … after that, probes ask every depth for the label, on passages that they were not trained on. If a label
is decodable early in depth long after it was given, it has been carried there before long-range reading begins;
what the token itself gives away is the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import named, number_coordinate, samples, text_coordinate
from layerscope.evidence.probing import scored
from layerscope.experiments.syntax_probe.items import DepthsItem
from layerscope.experiments.syntax_probe.items.passages import (
    FOLDS,
    folds_of,
    numbered_labels,
    read_of_any_label,
    read_since,
)
from layerscope.experiments.syntax_probe.settings import Settings
from layerscope.maths.probes import fit_logistic

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel


def fit_labels(model: LayeredModel, item: DepthsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Loss and answer for every token that is read, by probes that were trained on other passages.

    Each task has its null: the same labels dealt to other passages.
    """
    rows = earlier["passages"]
    tokens, picked = _texts(rows), read_of_any_label(rows)
    states = runs.StateCache(model).picked(tokens, item.depths, picked).to(model.device)
    passage = np.repeat(np.arange(len(tokens)), [len(ids) for ids in tokens])[picked]
    kinds = rows.sizes["label_kind"]
    right = np.full((len(item.depths), kinds, 2, len(picked)), np.nan)
    loss = np.full_like(right, np.nan)
    for kind in range(kinds):
        read = np.flatnonzero(read_since(rows.since.isel(token=picked, label_kind=kind)))
        n_classes, labels = numbered_labels(rows, kind)
        if n_classes < 2:
            continue
        asked = np.stack([labels, _dealt(labels, settings.seed)])[:, passage]
        fold = folds_of(labels, settings.seed)[passage[read]]
        for held_out in range(FOLDS):
            test, train = read[fold == held_out], read[fold != held_out]
            if len(test):
                loss[:, kind, :, test], right[:, kind, :, test] = _held_out(
                    states, asked, train, test, n_classes, settings
                )
    return samples(
        *(
            named(values, name, what, unit, dims=("fit", "label_kind", "against", "read"))
            for values, name, what, unit in (
                (right, "right", "whether the likeliest label is right", "1"),
                (loss, "loss", "−log p of the label", "nat"),
            )
        ),
        fit=number_coordinate(item.depths, "fit", "probes at one depth"),
        label_kind=rows.label_kind.variable,
        against=text_coordinate(["label", "dealt"], "against", "true labels, or dealt to other passages"),
        read=number_coordinate(picked, "read", "row of a token that is read"),
    )


def _held_out(
    states: Tensor, asked: np.ndarray, train: np.ndarray, test: np.ndarray, classes: int, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and rightness [test depth against] of probes at every depth, about the labels and the dealt ones."""
    probes = fit_logistic(
        states[:, train], asked[:, train], [classes] * 2, l2=settings.l2, tolerance=settings.tolerance
    )
    found = np.array(
        [
            [scored(depth.exp().double().cpu().numpy(), asked[row, test]) for depth in logs]
            for row, logs in enumerate(probes.log_probabilities(states[:, test]))
        ]
    )  # [against depth score test]
    loss, right = found.transpose(2, 3, 1, 0)
    return loss, right


def _texts(rows: xr.Dataset) -> list[list[int]]:
    ends = np.cumsum(rows.passage_tokens.to_numpy())
    return [ids.tolist() for ids in np.split(rows.token_id.to_numpy(), ends[:-1])]


def _dealt(labels: Sequence[int] | np.ndarray, seed: int) -> np.ndarray:
    dealt = np.array(labels)
    dealt[dealt >= 0] = np.random.default_rng([seed, 1]).permutation(dealt[dealt >= 0])
    return dealt
