"""Values of every head, mean over the texts that are cut: where removed attention may be kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import layer_coordinate, named, number_coordinate, samples
from layerscope.experiments.attention_knockout.items import ValuesItem
from layerscope.experiments.attention_knockout.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel

_SHORT = 64
"""Texts below so many tokens are read together where all are equally long."""


def sums_of_values(model: LayeredModel, item: ValuesItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Sums of the values of some texts as each query head reads them, the first token's left out."""
    model.need("pattern")
    sums: dict[int, np.ndarray] = {}
    for batch in _of_one_length(item.texts):
        recording = runs.record(model, runs.BaseRun(batch), keep=("q", "v"))
        for layer, values in recording.inside["v"].items():
            heads = recording.inside["q"][layer].shape[1]
            summed = values[:, :, 1:].double().sum(dim=(0, 2)).cpu().numpy()
            sums[layer] = sums.get(layer, 0.0) + summed.repeat(heads // len(summed), axis=0)
    shape = np.max([value.shape for value in sums.values()], axis=0)
    whole = np.full((model.n_layers, *shape), np.nan)
    for layer, value in sums.items():
        whole[layer, : value.shape[0], : value.shape[1]] = value
    count = np.int64(sum(len(ids) - 1 for ids in item.texts))
    return samples(
        named(whole, "sum", "sum of values, the first token's left out", dims=("layer", "head", "entry")),
        named(count, "count", "number of values"),
        layer=layer_coordinate(model.n_layers),
        entry=number_coordinate(range(whole.shape[-1]), "entry", "entry of a value"),
    )


def _of_one_length(texts: Sequence[tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    """All texts together where they are short and equally long, else one by one."""
    alike = len({len(ids) for ids in texts}) == 1 and len(texts[0]) < _SHORT
    return [tuple(texts)] if alike else [(ids,) for ids in texts]


def mean_values(model: LayeredModel, earlier: Earlier) -> list[Tensor] | None:
    """For each layer the mean value of every query head [head entry]; None where no value was added up."""
    import torch

    if "sum" not in earlier["values"]:
        return None
    found = []
    for layer in (earlier["values"]["sum"] / earlier["values"]["count"]).to_numpy():
        known = ~np.isnan(layer)
        rows, entries = known.any(axis=1), known.any(axis=0)
        found.append(torch.from_numpy(layer[rows][:, entries]).float().to(model.device))
    return found
