"""One passage: how long each token's state is at each depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import depth_coordinate, named, passage_token_coordinates, samples
from layerscope.maths.similarity import norm
from layerscope_state_growth.items import PassageItem
from layerscope_state_growth.settings import Settings

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


def lengths(model: LayeredModel, item: PassageItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Norms [depth token] of one passage, every token kept."""
    states = runs.read_states(model, item.passage.tokens.ids)
    return samples(
        named(norm(states), "norm", "norm of the residual stream", dims=("depth", "token")),
        **passage_token_coordinates(item.passage),
        depth=depth_coordinate(model.n_layers),
    )
