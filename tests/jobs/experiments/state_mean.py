"""How alike are a token's state and the same token's state without the first half of its context?

The first stage adds up states of all passages, the second needs their mean: the trial of folded stages.

Beware: made for tests.

Source: METHODS 3, truncated contexts, in its simplest form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Claim, Earlier, ExperimentSettings, Inputs, Stage, WorkItem
from layerscope.evidence.coordinates import depth_coordinate, number_coordinate, text_coordinate
from layerscope.maths.similarity import centred_cosine
from layerscope.results.schema import quantity
from layerscope.text.tokenised import TokenisedPassage

TAKES = {"passages"}


class Settings(ExperimentSettings):
    """None of its own."""


class PassageItem(WorkItem):
    """One passage."""

    passage: TokenisedPassage


def _items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PassageItem]:
    for passage in inputs.passages:
        yield PassageItem(name=passage.name, size=len(passage.tokens), passage=passage)


def _sum(model: Any, item: PassageItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    states = runs.read_states(model, item.passage.tokens.ids).numpy().astype(np.float64)
    width = number_coordinate(range(states.shape[2]), "width", "entry of a state")
    return xr.Dataset(
        {
            "total": quantity(states.sum(axis=1), "depth width", "sum of states"),
            "count": quantity(states.shape[1], "", "number of states"),
        },
        coords={"depth": depth_coordinate(model.n_layers), "width": width},
    )


def _add(folded: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    return folded.assign(total=folded.total + part.total, count=folded["count"] + part["count"])


def _cosine(model: Any, item: PassageItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    mean = (earlier["mean"].total / earlier["mean"]["count"]).values
    ids = item.passage.tokens.ids
    whole = runs.read_states(model, ids).numpy().astype(np.float64)
    cut = np.stack(
        [
            runs.read_states(model, ids[(last + 1) // 2 : last + 1]).numpy()[:, -1].astype(np.float64)
            for last in range(len(ids))
        ],
        axis=1,
    )
    values = centred_cosine(whole, cut, centre=mean[:, None]).T
    return xr.Dataset(
        {"similarity": quantity(values, "token depth", "centred cosine")},
        coords={
            "token_passage": text_coordinate([item.name] * len(ids), "token", "passage"),
            "depth": depth_coordinate(model.n_layers),
        },
    )


STAGES = (
    Stage("mean", items=_items, measure=_sum, combine=_add),
    Stage("cosine", items=_items, measure=_cosine),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Every similarity, and their mean over tokens."""
    mean = stages["cosine"].similarity.values.mean(axis=0)
    return stages["cosine"].assign(value=quantity(mean, "depth", "mean centred cosine"))


def claims(result: xr.Dataset) -> list[Claim]:
    """One number."""
    return [Claim(text="mean similarity", value=float(result.value.mean()))]


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """The mean."""
    return result[["value"]]


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Nothing."""
    return {}
