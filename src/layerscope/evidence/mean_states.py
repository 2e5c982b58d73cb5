"""The mean state at each depth, over whole texts: a stage that several experiments begin with.

Stage("mean", items=mean_items, measure=sum_of_states, combine=sum_of_parts)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.evidence.coordinates import depth_coordinate, number_coordinate
from layerscope.evidence.naming import named, samples
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


class MeanItem(WorkItem):
    """One passage, to be read whole."""

    passage: TokenisedPassage


def mean_items(inputs: Inputs, settings: Any, earlier: Earlier) -> Iterator[MeanItem]:
    """Every passage, once."""
    for passage in inputs.passages:
        size = inputs.facts.operations(len(passage.tokens))
        yield MeanItem(name=passage.name, size=size, passage=passage)


def sum_of_states(model: LayeredModel, item: MeanItem, settings: Any, earlier: Earlier) -> xr.Dataset:
    """The sum of a passage's states at each depth, in float64, what stands first left out."""
    from layerscope import runs

    states = runs.read_states(model, item.passage.tokens.ids)[:, 1:].double()
    return samples(
        named(states.sum(1), "sum", "sum of states", dims=("depth", "entry")),
        named(np.int64(states.shape[1]), "count", "number of states"),
        depth=depth_coordinate(model.n_layers),
        entry=number_coordinate(range(states.shape[-1]), "entry", "entry of the state"),
    )


def sum_of_parts(folded: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    """Two parts of a sum, variable by variable, in item order: what a stage that keeps sums is combined by."""
    sums = {
        name: folded[name].copy(data=folded[name].values + part[name].values) for name in folded.data_vars
    }
    return folded.assign(sums)


def mean_state(earlier: Earlier, stage: str = "mean") -> Any:
    """The mean state of such a stage, as a float32 tensor [depth width]."""
    import torch

    mean = earlier[stage]
    return torch.from_numpy((mean["sum"] / mean["count"]).values).float()
