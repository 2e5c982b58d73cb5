"""What attention patterns say once all sums are there: ratios by head and layer, nulls, and the block."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import Over, measure, named, number_coordinate, places_in_words, text_coordinate
from layerscope.experiments.attention_patterns.conclude.block import SINK_MEASURES, THRESHOLDS, block
from layerscope.experiments.attention_patterns.conclude.distances import distances, passage_shares
from layerscope.experiments.attention_patterns.conclude.first_tokens import content
from layerscope.experiments.attention_patterns.conclude.ratios import (
    REPEATED,
    STATISTICS,
    of_texts,
    over_heads,
)
from layerscope.experiments.attention_patterns.conclude.sentences import syntax
from layerscope.experiments.attention_patterns.settings import Settings
from layerscope.maths.attention import DEFINITIONS, DISTANCE_BINS, OFFSETS, bin_name
from layerscope.results.escaping import stored
from layerscope.results.schema import write_json

_VALUE_ITSELF = "the value itself"


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Every statistic by head and by layer, its nulls, and the block of distributed attention."""
    passages = stages["passages"]
    over = Over(passages, settings, rows="passage")
    parts = [
        *of_texts(over, passages.model_sums, passages.uniform_sums, STATISTICS),
        *distances(passages, over),
        *content(passages, over, settings.mean_positions),
        *block(passages, over, settings.sink_share),
        passage_shares(passages),
        *_repeated(stages["repeats"], settings),
        *syntax(stages["sentences"], settings),
    ]
    result = xr.merge(parts, join="outer", compat="no_conflicts", combine_attrs="override")
    result = result.assign(
        value_source=passages.value_source.variable,
        fixed_texts=named(
            int(passages.get("fixed_texts", 0)),
            "fixed_texts",
            "texts that the mean pattern at fixed queries is of",
        ),
        fixed_queries=passages.fixed_queries.variable,
        left_out_because=_left_out(passages),
    ).assign_coords(_coordinates(passages))
    return write_json(result, cautions=_cautions(result, settings))


def _coordinates(passages: xr.Dataset) -> dict[str, Any]:
    bins = [bin_name(*ends) for ends in DISTANCE_BINS]
    own = {name: passages[name].variable for name in ("definition", "layer", "passage", "tokens", "end")}
    return own | {
        "offset": number_coordinate(range(OFFSETS), "offset", "distance [tokens]"),
        "distance_bin": text_coordinate(bins, "distance_bin", "distance [tokens]"),
        "threshold": xr.Variable(
            ("threshold",), list(THRESHOLDS), {"long_name": "share that ends the block"}
        ),
        "sink_measure": text_coordinate(SINK_MEASURES, "sink_measure", "what a layer rests on"),
    }


def _repeated(repeats: xr.Dataset, settings: Settings) -> list[xr.Dataset]:
    """Copies and induction in random text read twice, beside the same places of text that is not."""
    if not repeats.sizes.get("sample"):
        return []
    over = Over(repeats, settings, rows="sample")
    found = of_texts(over, repeats.repeat_model_sums, repeats.repeat_uniform_sums, REPEATED)
    for name, statistic in REPEATED.items():
        own, null = statistic.parts(repeats.repeat_own_mean_sums), "the same places of text that is not"
        long_name = f"{statistic.long_name}: {null}"
        found.append(over_heads(f"own_mean_{name}", *own, over.unit, long_name, statistic.units))
    return found


def _left_out(passages: xr.Dataset) -> xr.DataArray:
    """Passages that do not reach the fixed queries take part in everything else."""
    reasons = np.where(passages.tokens.values < 2, stored("shorter than two tokens"), "").astype(str)
    return named(reasons, "left_out_because", "why the passage is left out, or empty", dims=["passage"])


def _cautions(result: xr.Dataset, settings: Settings) -> list[str]:
    first, end = (int(value) for value in result.fixed_queries.values)
    reaching = int((result.tokens.values >= end).sum()) if first >= 0 else 0
    cautions = [
        f"Distances are read at queries {first} to {end - 1}, "
        f"which {reaching} of {result.sizes['passage']} passages have."
        if first >= 0
        else "Passages are too short for distances at fixed queries."
    ]
    if first >= 0 and first < settings.fixed_query:
        cautions[0] += f" Most passages are not longer than fixed_query = {settings.fixed_query}."
    source = result.value_source.values
    unfound, without = result.layer.values[source == _VALUE_ITSELF], result.layer.values[source == ""]
    if len(unfound):
        cautions.append(
            f"In {places_in_words(unfound, 'layer')} no output projection was found behind the heads: value norms are "
            "those of the values themselves."
        )
    if len(without):
        have = "has" if len(without) == 1 else "have"
        cautions.append(
            f"{places_in_words(without, 'layer').capitalize()} {have} no attention: gaps in every curve."
        )
    if "dependency_share" not in result:
        cautions.append("No treebank was read: nothing is said about syntax.")
    if "repeat_induction_share" not in result:
        cautions.append("No random text was read twice: induction is known on natural text only.")
    return cautions


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """The first token's share of attention, beside that of uniform attention."""
    here = {"definition": DEFINITIONS[0]}
    return {
        "first_token_share": measure(
            result,
            "first_token_share",
            label="attention to the first token",
            sense="heads rest on the first token (attention sink)",
            questions="attention",
            null=result.uniform_first_token_share.sel(here, drop=True),
            **here,
        )
    }
