"""Which contexts excite an MLP key, and how shallow is what they share?

Keys are drawn at random in every layer (or chosen), and the corpus is searched for the contexts that
excite each most, at both tails where there are two. What excites a key is what multiplies its row of
the MLP's output projection: in gated MLPs the product of gate and up. Contexts that end alike count
once. Then, instead of people's judgement, measured shallowness: how often two of a key's contexts end in
the same token, two tokens, three tokens; how alike they are otherwise (cosine of their rare tokens,
pairs from one passage left out); how much of the activation is left when the last token is replaced, or
everything before the last 1, 2, 5, 20 tokens, by the text of another passage; the radius of a key is the
fewest last tokens that carry 80 % of its activation. Then the values: is the token that a key's value
raises most the one that follows, more often than its frequency would make it; how does the value rank
the next token among tokens of like frequency. And the sum: how many keys are active, and how often does
a layer's output say what no single active value says.

Every context, with its tokens and activations, is kept, for reading and for annotation by people
(`layerscope annotate`). Keys, not contexts, are independent: intervals are over keys, nulls are random
contexts of the same corpus.

Beware: contexts are the highest of many, so their activations fall back when anything is touched; read
what is kept beside what replacing everything leaves. Replacements are made in a window of the last
tokens, moved to the front of a text: what the window alone keeps is shown. Likeness of rare tokens is
likeness of subject, not of meaning. A value read by the unembedding passes no later layer.

Source: Geva et al. 2021, "Transformer Feed-Forward Layers Are Key-Value Memories": 10 random keys of
each layer, top 25 contexts, token removal, value agreement, composition; Gurnee et al. 2023, "Finding
Neurons in a Haystack".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Earlier, Judged, Stage
from layerscope.evidence.curves import as_curve
from layerscope.experiments import (
    _trigger_annotations,
    _trigger_census,
    _trigger_claims,
    _trigger_contexts,
    _trigger_figures,
    _trigger_reading,
    _trigger_search,
    _trigger_summaries,
    _trigger_topics,
)
from layerscope.experiments._trigger_settings import Settings as Settings
from layerscope.results.annotation_sheets import Judgements, Sheet
from layerscope.results.pages import Page
from layerscope.results.schema import quantity, write_json

TAKES = {"passages"}

STAGES = (
    Stage("values", items=_trigger_census.layers, measure=_trigger_census.measure_values, along=("layer",)),
    Stage(
        "census",
        items=_trigger_census.census_passages,
        measure=_trigger_census.measure_census,
        combine=_trigger_census.fold_census,
    ),
    Stage(
        "search",
        items=_trigger_search.search_items,
        measure=_trigger_search.measure_search,
        combine=_trigger_search.fold_search,
    ),
    Stage(
        "contexts",
        items=_trigger_contexts.context_items,
        measure=_trigger_contexts.measure_contexts,
        along=("context",),
    ),
    Stage("topics", items=_trigger_topics.topic_items, measure=_trigger_topics.measure_topics),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Numbers of keys, layers and halves, beside the contexts they rest on."""
    census, search, contexts = stages["census"], stages["search"], stages["contexts"]
    n_layers = census.sizes["layer"]
    layers, tails = search.key_layer.values, search.key_tail.values
    keys = _trigger_summaries.key_numbers(search, contexts, settings)
    sets = _trigger_summaries.random_sets(search, settings)
    per_layer = _trigger_summaries.layer_numbers(keys, layers, tails, n_layers, settings)
    per_layer |= _trigger_summaries.null_numbers(keys, layers, tails, n_layers, sets, settings)
    per_layer |= _trigger_summaries.census_numbers(census, settings)
    halves = _trigger_summaries.halves(keys, layers, tails, n_layers, settings)
    power = _trigger_topics.power_of_coherence(stages["topics"], sets["coherence"], settings)
    kept = ["value", "along", "ids"]
    result = contexts.assign(
        {str(name): variable.variable for name, variable in keys.data_vars.items()}
        | per_layer
        | {str(name): variable.variable for name, variable in halves.data_vars.items()}
        | _trigger_summaries.whole_model(keys, tails, settings)
        | {f"context_{name}": search[name].variable for name in kept}
        | {str(name): variable.variable for name, variable in power.data_vars.items()}
        | {f"random_{name}": quantity(values, "random_set", name) for name, values in sets.items()}
        | {
            name: census[name].variable
            for name in ("active_share", "effective_share", "unmatched_share", "unmatched_by_chance")
        }
    ).assign_coords(
        _trigger_summaries.layer_axis(n_layers)
        | {
            name: search[name].variable
            for name in ("key", "key_layer", "key_index", "key_tail", "rank", "place")
        }
        | {
            "statistic": halves.statistic.variable,
            "made": power.made.variable,
            "words": power.words.variable,
            "passage": census.passage.variable,
            "random_set": xr.Variable(
                "random_set", np.arange(settings.null_sets), {"long_name": "random set of contexts"}
            ),
        }
    )
    result["key_left_out_because"] = quantity(
        _trigger_summaries.unused(keys),
        "key",
        "why the key shares nothing, or empty",
    )
    result = result.assign_attrs(
        corpus_tokens=int(search.counts.values.sum()),
        kept_share=settings.kept_share,
        least_power=settings.least_power,
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


def claims(result: xr.Dataset) -> list[Claim]:
    """What contexts share beyond chance, how the halves of the model differ, and what values say."""
    return _trigger_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """How often two contexts of a key end in the same token, beside random contexts."""
    return as_curve(result, "mean_shared_last_token", null=result.null_shared_last_token)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """What contexts share, what replacing leaves, radius, likeness, values, and the sum."""
    return _trigger_figures.draw(result)


def read(result: xr.Dataset) -> dict[str, Page]:
    """One page for each layer: the contexts of its keys, the token that excites marked."""
    return _trigger_reading.pages(result)


def sheet(result: xr.Dataset) -> Sheet:
    """The contexts for a person to judge, in random order and without their layers."""
    return _trigger_annotations.sheet(result)


def judged(result: xr.Dataset, judgements: Judgements) -> Judged:
    """What annotators found, by layer, and how far they agree."""
    return _trigger_annotations.judged(result, judgements)
