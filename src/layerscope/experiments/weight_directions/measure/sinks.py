"""How much of its attention each layer gives the first token: what the rates of directions may go with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence.coordinates import layer_coordinate, number_coordinate
from layerscope.experiments.weight_directions.items import SinkItem
from layerscope.experiments.weight_directions.measure.vocabulary import short_texts
from layerscope.experiments.weight_directions.settings import Settings
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


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
