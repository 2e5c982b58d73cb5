"""How much of its attention each layer gives the first token: what the rates of directions may go with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.evidence.coordinates import layer_coordinate, number_coordinate
from layerscope.experiments._weight_settings import ATTENTION, Settings
from layerscope.experiments._weight_vocabulary import short_texts
from layerscope.results.schema import quantity
from layerscope.text.tokens import BosPolicy

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


class SinkItem(WorkItem):
    """A few texts, to be read whole."""

    bos: BosPolicy


def items_of_sinks(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[SinkItem]:
    """One piece of work, where attention is decomposed at all."""
    if set(ATTENTION) & set(settings.kinds):
        yield SinkItem(name="attention to the first token", size=1.0, bos=inputs.bos)


def measure_sinks(model: LayeredModel, item: SinkItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The share that tokens other than the first give the first one, mean over heads and tokens."""
    texts = short_texts(model, settings, item.bos) if "pattern" not in model.refused else []
    shares = np.full((len(texts), model.n_layers), np.nan)
    for row, ids in enumerate(texts):
        with np.errstate(invalid="ignore"):
            found = runs.attention_to_first(model, ids)[:, :, 1:].astype(np.float64)
        known = np.isfinite(found)
        n = known.sum(axis=(1, 2))
        shares[row] = np.where(n > 0, np.where(known, found, 0).sum(axis=(1, 2)) / np.maximum(n, 1), np.nan)
    return xr.Dataset(
        {
            "first_token_share": quantity(
                shares, "sink_text layer", "attention to the first token, mean over heads"
            )
        },
        coords={
            "layer": layer_coordinate(model.n_layers),
            "sink_text": number_coordinate(range(len(texts)), "sink_text", "text"),
        },
    )
