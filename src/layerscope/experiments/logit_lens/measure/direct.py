"""Prompts whose answers are attributed: what layers, heads and MLPs write towards them and towards another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.errors import LayerscopeError
from layerscope.evidence import (
    layer_coordinate,
    named,
    number_coordinate,
    prompts_coordinates,
    samples,
    text_coordinate,
)
from layerscope.experiments.logit_lens.items import LensItem
from layerscope.experiments.logit_lens.settings import Settings

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

TARGETS = ("answer", "another answer")
PARTS = {
    "attention": ("what a layer's attention writes towards the logit", ("layer",)),
    "mlp": ("what a layer's MLP writes towards the logit", ("layer",)),
    "head": ("what a head writes towards the logit", ("layer", "head")),
    "attention_bias": ("what a layer's attention writes whatever its heads give", ("layer",)),
    "embedding": ("what the state before the first layer gives to the logit", ()),
    "bias": ("what the final norm's shift and the unembedding's bias give to the logit", ()),
    "logit": ("the token's logit, before any soft cap", ()),
}


def direct(model: LayeredModel, item: LensItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Parts of the logits of some prompts' answers, and of another prompt's; NaN, with the reason, where refused."""
    n, heads = len(item.prompts), model.facts.n_heads or 1
    lengths = {"layer": model.n_layers, "head": heads}
    values = {
        name: np.full((n, len(TARGETS), *(lengths[dim] for dim in dims)), np.nan, dtype=np.float32)
        for name, (_, dims) in PARTS.items()
    }
    answers = [-1 if prompt.own else prompt.answer_ids[0] for prompt in item.prompts]
    try:
        found = runs.direct_logits(
            model,
            [prompt.tokens.ids for prompt in item.prompts],
            list(zip(answers, item.others, strict=True)),
        )
    except LayerscopeError as error:
        why = error.short
    else:
        why = found.one_projection
        values = {name: getattr(found, name).cpu().numpy() for name in PARTS}
    return samples(
        *(
            named(values[name], f"direct_{name}", what, "logit", dims=("prompt", "target", *dims))
            for name, (what, dims) in PARTS.items()
        ),
        named([why] * n, "direct_lacks", "why parts could not be attributed, or empty", dims=("prompt",)),
        **prompts_coordinates(item.prompts),
        target=text_coordinate(TARGETS, "target", "whose logit"),
        layer=layer_coordinate(model.n_layers),
        head=number_coordinate(range(heads), "head", "head"),
    )
