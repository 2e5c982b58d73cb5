"""One passage of first_token_attention: what each query gives the first token, read in three ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import layer_coordinate, named, number_coordinate, samples, text_coordinate
from layerscope.experiments.first_token_attention.items import TextItem
from layerscope.experiments.first_token_attention.settings import Settings

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

BOS_FIRST, NOTHING_ADDED, ANOTHER_FIRST = READINGS = ("BOS first", "nothing added", "another token first")
SHARE = "share of attention on the first token"


def shares_on_first(model: LayeredModel, item: TextItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Shares [passage reading layer head position]; NaN behind the end of a text, and where nothing is BOS."""
    bos = item.first
    fronts = {BOS_FIRST: () if bos is None else (bos,), NOTHING_ADDED: (), ANOTHER_FIRST: (item.other,)}
    found = {
        reading: runs.attention_to_first(model, (*front, *item.body))
        for reading, front in fronts.items()
        if reading != BOS_FIRST or bos is not None
    }
    layers_and_heads = next(iter(found.values())).shape[:2]
    shares = np.full((len(READINGS), *layers_and_heads, item.positions), np.nan, dtype=np.float32)
    for reading, values in found.items():
        shares[READINGS.index(reading), ..., : values.shape[-1]] = values
    dims = ("passage", "reading", "layer", "head", "position")
    firsts = [[-1 if bos is None else bos, item.body[0], item.other]]
    return samples(
        named(shares[None], "attention_to_first", SHARE, dims=dims),
        named(firsts, "first_token", "id of the first token", dims=dims[:2]),
        passage=text_coordinate([item.passage], "passage", "passage"),
        reading=text_coordinate(READINGS, "reading", "what stands first"),
        layer=layer_coordinate(model.n_layers),
        position=number_coordinate(range(item.positions), "position", "position of the query"),
    )
