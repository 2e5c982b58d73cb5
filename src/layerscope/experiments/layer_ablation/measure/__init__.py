"""One passage of layer_ablation: what its attention and MLPs add, then what every ablation does to its predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import (
    layer_coordinate,
    named,
    number_coordinate,
    passage_token_coordinates,
    samples,
    text_coordinate,
)
from layerscope.experiments.layer_ablation.items import AblatedItem, PassageItem
from layerscope.experiments.layer_ablation.measure.changes import ablated
from layerscope.experiments.layer_ablation.settings import Settings
from layerscope.text.categories import label_tokens

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


def mean(model: LayeredModel, item: PassageItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Sums of what attention and MLP add in every layer, over a passage's late tokens."""
    found = runs.read_contributions(model, item.passage.tokens.ids)
    late = slice(settings.first_position, None)
    sums = [
        named(
            getattr(found, part)[:, late].double().sum(1),
            part,
            f"sum of what the {part} adds",
            dims=("layer", "width"),
        )
        for part in ("attention", "mlp")
    ]
    count = float(len(item.passage.tokens) - settings.first_position)
    return samples(
        *sums,
        named(count, "count", "tokens summed over"),
        layer=layer_coordinate(model.n_layers),
        width=number_coordinate(range(model.facts.width), "width", "entry of the residual stream"),
    )


def ablations(model: LayeredModel, item: AblatedItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """What every ablation of every layer does at every token of the passage's beginning."""
    passage, ids = item.passage, item.passage.tokens.ids
    n = min(len(ids), settings.tokens)
    cut = max(1, int(n * settings.earlier))
    found = ablated(
        model,
        ids[:n],
        ids[n] if n < len(ids) else None,
        text=passage.passage.text,
        cut=cut,
        settings=settings,
        earlier=earlier,
        tokens_per_pass=item.tokens_per_pass,
    )
    dims, token = ("token", "ablation", "layer"), ("token",)
    where = {name: values[:n] for name, values in passage_token_coordinates(passage).items()}
    categories = label_tokens(passage.tokens, passage.passage.text).category[:n]
    return samples(
        named(
            found.kl, "kl", "divergence of the ablated from the model's own distribution", "nat", dims=dims
        ),
        named(found.same, "same_top", "whether the most probable token stays", dims=dims),
        named(found.loss, "loss_increase", "rise of the loss on the text's next token", "nat", dims=dims),
        named(found.clean_loss, "loss", "loss on the text's next token, nothing ablated", "nat", dims=token),
        named(
            np.arange(n) >= cut, "later", "whether ablations of the earlier tokens are read here", dims=token
        ),
        **where,
        token_category=text_coordinate(categories, "token", "category of the token"),
        passage=text_coordinate([passage.name], "passage", "passage"),
        ablation=text_coordinate(settings.ablations, "ablation", "what is done to a layer"),
        layer=layer_coordinate(model.n_layers),
    )
