"""From contexts to numbers of keys, of layers, of the halves of the model, and of the sums that layers write."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import measure, number_coordinate
from layerscope.experiments.trigger_examples.conclude.keys import key_numbers, random_sets
from layerscope.experiments.trigger_examples.conclude.layers import (
    census_numbers,
    halves,
    layer_numbers,
    null_numbers,
    whole_model,
)
from layerscope.experiments.trigger_examples.conclude.topics import power_of_coherence
from layerscope.experiments.trigger_examples.settings import Settings
from layerscope.results.schema import quantity, write_json

_OF_CENSUS = ["active_share", "effective_share", "unmatched_share", "unmatched_by_chance"]


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Numbers of keys, layers and halves, beside the contexts they rest on."""
    census, search, contexts = stages["census"], stages["search"], stages["contexts"]
    n_layers = census.sizes["layer"]
    keys, sets = key_numbers(search, contexts, settings), random_sets(search, settings)
    positive = keys.isel(key=np.flatnonzero(keys.key_tail.values > 0))
    pieces = [
        keys,  # before the contexts: some numbers of a key are called like those of its contexts
        contexts,
        layer_numbers(positive, n_layers, settings),
        null_numbers(positive, n_layers, sets, settings),
        census_numbers(census, settings),
        halves(positive, n_layers, settings),
        whole_model(positive, settings),
        power_of_coherence(stages["topics"], sets["coherence"], settings),
        search[["value", "along", "ids"]].rename(
            value="context_value", along="context_along", ids="context_ids"
        ),
        xr.Dataset({f"random_{name}": quantity(values, "random_set", name) for name, values in sets.items()}),
        census[_OF_CENSUS],
    ]
    result = xr.merge(pieces, join="exact", compat="override", combine_attrs="override")
    result = (
        result.drop_attrs(deep=False)
        .assign_coords(
            random_set=number_coordinate(range(settings.null_sets), "random_set", "random set of contexts")
        )
        .assign_attrs(
            corpus_tokens=int(search.counts.values.sum()),
            kept_share=settings.kept_share,
            least_power=settings.least_power,
        )
    )
    return write_json(result, cautions=_cautions(result))


def _cautions(result: xr.Dataset) -> list[str]:
    cautions = []
    if result.value_top.size and (result.value_top.values < 0).all():
        cautions.append(
            "This model's unembedding could not be rebuilt, so values were not read as tokens: agreement and "
            "composition are unknown."
        )
    if not np.isfinite(result.kept_without_last.values).any():
        cautions.append(
            "No context was taken apart: too short, no other passage to take text from, or edited=0."
        )
    return cautions


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """What a layer's keys share and carry, whether their values come true, and how many are active."""
    return {
        "shared_last_token": measure(
            result,
            "mean_shared_last_token",
            label="contexts ending in the same token",
            sense="two of a key's top contexts mostly end in the same token",
            questions="weights",
            null=result.null_shared_last_token,
        ),
        "kept_without_last": measure(
            result,
            "mean_kept_without_last",
            label="activation kept without last token",
            sense="keys stay active when their last token is replaced",
            questions="weights",
            null=result.mean_kept.sel(kept_tokens=0, drop=True),
        ),
        "agreement": measure(
            result,
            "mean_agreement",
            label="value's top token comes next",
            sense="contexts of a key are mostly followed by the token that its value raises most",
            questions="weights",
            null=result.null_agreement,
        ),
        "active_share": measure(
            result,
            "mean_active_share",
            label="share of MLP keys active",
            sense="many of the layer's keys are above 0 at a token",
            questions="weights",
        ),
    }
