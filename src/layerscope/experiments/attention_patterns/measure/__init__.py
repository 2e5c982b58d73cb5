"""What a work item of attention_patterns gives: sums over queries and keys, text by text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import layer_coordinate, named, number_coordinate, samples, text_coordinate
from layerscope.experiments.attention_patterns.items import (
    KINDS,
    PASSAGES,
    FirstTokensItem,
    PassagesItem,
    RepeatsItem,
)
from layerscope.experiments.attention_patterns.measure.fixed_queries import own_fixed_sums
from layerscope.experiments.attention_patterns.measure.heads import by_layer, heads_of
from layerscope.experiments.attention_patterns.measure.tables import (
    CORNER_SUMS,
    CORNERS,
    SUMS,
    definition_and_layer,
    mean_pattern,
    table,
)
from layerscope.experiments.attention_patterns.settings import Settings

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.runs.attention_statistics import AttentionSums

_OVER = "sum over queries and keys"
_COLUMNS = {
    "model_sums": ("model", SUMS, "sum", "sums of attention"),
    "uniform_sums": ("uniform", SUMS, "sum", "sums of uniform attention"),
} | {
    f"{source}_sums": (source, CORNER_SUMS, "corner_sum", f"sums among the first tokens, {whose}")
    for source, whose in CORNERS.items()
}
"""Tables of a passage, by name: whose, which sums, along what, and what it is called."""


def first_patterns(
    model: LayeredModel, item: FirstTokensItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Patterns of the first tokens, summed over the texts of the item."""
    tokens, n = len(item.rows[0]), settings.mean_positions
    layers, pattern = runs.first_patterns(model, item.rows)
    whole = np.zeros((len(KINDS), model.n_layers, heads_of(layers), n, n))
    place = KINDS.index(item.kind)
    whole[place, :, :, :tokens, :tokens] = by_layer(
        pattern.double().cpu().numpy(), layers, model.n_layers, axis=0
    )
    texts = np.zeros((len(KINDS), n), dtype=np.int64)
    texts[place, :tokens] = len(item.rows)
    dims = ("text_kind", "layer", "head", "query", "key")
    return samples(
        named(whole, "pattern_sum", "pattern, summed over texts", dims=dims),
        named(texts, "pattern_texts", "texts with such a query", dims=("text_kind", "query")),
        text_kind=text_coordinate(KINDS, "text_kind", "kind of text"),
        query=number_coordinate(range(n), "query", "position of the query"),
        key=number_coordinate(range(n), "key", "position of the key"),
        layer=layer_coordinate(model.n_layers),
    )


def sums_of_passages(
    model: LayeredModel, item: PassagesItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Sums over queries and keys, passage by passage."""
    reaching = [bool(item.fixed and len(passage.tokens) >= item.fixed[1]) for passage in item.passages]
    found = _sums_of_each(model, item, reaching, settings, earlier)
    tables = [
        named(
            np.concatenate([table(getattr(one, of), wanted, one.layers, model.n_layers) for one in found]),
            name,
            long_name,
            dims=("passage", "definition", "layer", "head", along),
        )
        for name, (of, wanted, along, long_name) in _COLUMNS.items()
    ]
    lengths = [len(passage.tokens) for passage in item.passages]
    of_all = samples(
        *tables,
        _sources(found[0].value_sources, model.n_layers),
        named(item.fixed or (-1, -1), "fixed_queries", "queries at which distances are read", dims=["end"]),
        **definition_and_layer(model),
        passage=text_coordinate([passage.name for passage in item.passages], "passage", "passage"),
        tokens=xr.Variable(("passage",), lengths, {"long_name": "tokens"}),
        sum=text_coordinate(SUMS, "sum", _OVER),
        corner_sum=text_coordinate(CORNER_SUMS, "corner_sum", _OVER),
        end=text_coordinate(("first", "behind the last"), "end", "end of a range of positions"),
    )
    own = own_fixed_sums(found, reaching, earlier.get("fixed_means"), model.n_layers)
    return of_all.assign(own.data_vars).assign_coords(own.coords)


def _sums_of_each(
    model: LayeredModel, item: PassagesItem, reaching: list[bool], settings: Settings, earlier: Earlier
) -> list[AttentionSums]:
    lengths, mean = runs.ValueLengths(model), mean_pattern(earlier["means"], PASSAGES)
    found = []
    for passage, reaches in zip(item.passages, reaching, strict=True):
        asked = runs.asked_of(
            [passage.tokens.ids],
            fixed=item.fixed if reaches else None,
            least_kept=settings.least_kept,
            device=model.device,
        )
        found.append(runs.attention_sums(model, asked, lengths, mean_pattern=mean))
    return found


def _sources(sources: Mapping[int, str], n_layers: int) -> xr.DataArray:
    names = [sources.get(layer, "") for layer in range(n_layers)]
    return named(np.array(names), "value_source", "what value norms are norms of", dims=["layer"])


def sums_of_repeats(
    model: LayeredModel, item: RepeatsItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Attention in random text that is read twice, and at the same places of text that is not.

    What a head gives these places in texts without a repetition is what its positions alone give them.
    """
    import torch

    asked = runs.asked_of(list(item.rows), least_kept=settings.least_kept, device=model.device)
    lengths = runs.ValueLengths(model)
    found = runs.attention_sums(model, asked, lengths)
    apart = runs.attention_sums(model, replace(asked, ids=torch.tensor(item.others)), lengths)
    sums = {"model": found.model, "uniform": found.uniform, "own_mean": apart.model}
    tables = [
        named(
            table(own, SUMS, found.layers, model.n_layers),
            f"repeat_{source}_sums",
            f"sums of attention in repeated texts ({source.replace('_', ' ')})",
            dims=("sample", "definition", "layer", "head", "sum"),
        )
        for source, own in sums.items()
    ]
    return samples(*tables, **definition_and_layer(model), sum=text_coordinate(SUMS, "sum", _OVER))
