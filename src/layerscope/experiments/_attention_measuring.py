"""What a work item of attention patterns gives: sums over queries and keys, text by text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence.coordinates import layer_coordinate, number_coordinate, text_coordinate
from layerscope.experiments._attention_fixed import own_fixed_sums
from layerscope.experiments._attention_heads import by_layer, heads_of, side_by_side
from layerscope.experiments._attention_items import (
    KINDS,
    PASSAGES,
    SENTENCES,
    FirstTokensItem,
    PassagesItem,
    RepeatsItem,
    SentencesItem,
)
from layerscope.experiments._attention_settings import Settings
from layerscope.maths.attention import DISTANCE_BINS, OFFSETS, band_name
from layerscope.results.schema import quantity
from layerscope.text.tokenised_words import TokenisedSentence

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

DEFINITIONS = ("all keys", "without first token", "without sinks", "by value norm")

QUERIES = "queries"
SUMS = (
    QUERIES, "every", "first token", "self", "previous token", "distance", "entropy", "span", "entropy queries",
    "duplicate token", "with duplicate", "induction", "with induction", "fixed", "fixed distance",
    "distance from 11", "distance from 51", *(f"offset {offset}" for offset in range(OFFSETS)),
)  # fmt: skip
BIN_SUMS = tuple(band_name(first) for first, _ in DISTANCE_BINS)
CORNER_SUMS = (
    QUERIES, "every", "first token", "self", "previous token", "distance", "entropy", "span", "entropy queries",
    "duplicate token", "with duplicate", "induction", "with induction", "deviation", *BIN_SUMS,
)  # fmt: skip
CORNERS = {
    "corner": "the model's attention",
    "own_mean": "the head's mean pattern",
    "uniform_corner": "uniform attention",
}
SENTENCE_SUMS = ("every", "dependency", "to head", "to dependent")


def measure_first_tokens(
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
    return xr.Dataset(
        {
            "pattern_sum": quantity(whole, "text_kind layer head query key", "pattern, summed over texts"),
            "pattern_texts": quantity(texts, "text_kind query", "texts with such a query"),
        },
        coords={
            "text_kind": text_coordinate(KINDS, "text_kind", "kind of text"),
            "query": number_coordinate(range(n), "query", "position of the query"),
            "key": number_coordinate(range(n), "key", "position of the key"),
            "layer": layer_coordinate(model.n_layers),
        },
    )


def add_patterns(so_far: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    """Two parts of the sum over texts."""
    return so_far.assign(
        {
            name: quantity(
                so_far[name].values + part[name].values,
                [str(dim) for dim in so_far[name].dims],
                *_naming(so_far[name]),
            )
            for name in ("pattern_sum", "pattern_texts")
        }
    )


def _naming(values: xr.DataArray) -> tuple[str, str]:
    return str(values.attrs["long_name"]), str(values.attrs["units"])


def _mean_pattern(means: xr.Dataset, kind: str) -> np.ndarray:
    """The mean pattern of first tokens over texts of a kind [head query key], heads side by side."""
    here = KINDS.index(kind)
    total, texts = means.pattern_sum.values[here], means.pattern_texts.values[here]
    return side_by_side(total / np.maximum(texts, 1)[:, None]).astype(np.float32)


def measure_passages(
    model: LayeredModel, item: PassagesItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Sums over queries and keys, passage by passage."""
    lengths = runs.ValueLengths(model)
    mean = _mean_pattern(earlier["means"], PASSAGES)
    found = []
    for passage in item.passages:
        fixed = item.fixed if item.fixed and len(passage.tokens) >= item.fixed[1] else None
        asked = runs.asked_of(
            [passage.tokens.ids], fixed=fixed, least_kept=settings.least_kept, device=model.device
        )
        found.append(runs.attention_sums(model, asked, lengths, mean_pattern=mean))
    columns = {
        "model_sums": ("model", SUMS, "sum", "sums of attention"),
        "uniform_sums": ("uniform", SUMS, "sum", "sums of uniform attention"),
    } | {
        f"{source}_sums": (source, CORNER_SUMS, "corner_sum", f"sums among the first tokens, {whose}")
        for source, whose in CORNERS.items()
    }
    variables = {
        name: quantity(
            np.concatenate(
                [_table(getattr(one, source), wanted, one.layers, model.n_layers) for one in found]
            ),
            f"passage definition layer head {dimension}",
            long_name,
        )
        for name, (source, wanted, dimension, long_name) in columns.items()
    }
    passages = [passage.name for passage in item.passages]
    reaching = [bool(item.fixed and len(passage.tokens) >= item.fixed[1]) for passage in item.passages]
    own_fixed = own_fixed_sums(found, reaching, earlier.get("fixed_means"), model.n_layers)
    return xr.Dataset(
        variables
        | own_fixed
        | _sources(found[0].value_sources, model.n_layers)
        | {
            "fixed_queries": quantity(
                np.array(item.fixed or (-1, -1)), "end", "queries at which distances are read"
            )
        },
        coords=_definition_and_layer(model)
        | {
            "passage": text_coordinate(passages, "passage", "passage"),
            "tokens": xr.Variable(
                ("passage",), [len(passage.tokens) for passage in item.passages], {"long_name": "tokens"}
            ),
            "sum": text_coordinate(SUMS, "sum", "sum over queries and keys"),
            "corner_sum": text_coordinate(CORNER_SUMS, "corner_sum", "sum over queries and keys"),
            "end": text_coordinate(("first", "behind the last"), "end", "end of a range of positions"),
        },
    )


def _sources(sources: Mapping[int, str], n_layers: int) -> dict[str, xr.Variable]:
    names = [sources.get(layer, "") for layer in range(n_layers)]
    return {"value_source": quantity(np.array(names), "layer", "what value norms are norms of")}


def _definition_and_layer(model: LayeredModel) -> dict[str, xr.Variable]:
    return {
        "definition": text_coordinate(DEFINITIONS, "definition", "attention that counts"),
        "layer": layer_coordinate(model.n_layers),
    }


def _table(
    sums: Mapping[str, Any], wanted: Sequence[str], layers: Sequence[int], n_layers: int
) -> np.ndarray:
    """Named sums [text definition layer head sum]."""
    flat = np.stack([_one(sums, name) for name in wanted], axis=-1)  # definition text head sum
    return np.moveaxis(by_layer(flat, layers, n_layers, axis=2), 1, 0).astype(np.float32)


def _one(sums: Mapping[str, Any], name: str) -> np.ndarray:
    """One sum [definition text head]; distances are positions of queries less those of keys."""
    if name in ("distance", "fixed distance"):
        ends = {"distance": ("query position", "every"), "fixed distance": ("query position, fixed", "fixed")}
        query, total = ends[name]
        return _one(sums, query) - _one(sums, f"key position, {total}")
    known = sums.get(name)  # a bin that the first tokens do not reach is empty; nulls deviate from nothing
    return np.asarray((sums["every"] * 0 if known is None else known).double().cpu().numpy())


def measure_sentences(
    model: LayeredModel, item: SentencesItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Attention along dependencies and by part of speech, sentence by sentence."""
    import torch

    sentences = item.sentences
    tags = torch.tensor(np.stack([_tagged(sentence, item.tags) for sentence in sentences]))
    asked = runs.asked_of(
        [sentence.tokens.ids for sentence in sentences],
        relations=[_relations(sentence) for sentence in sentences],
        tags=tags,
        least_kept=settings.least_kept,
        device=model.device,
    )
    mean = _mean_pattern(earlier["means"], SENTENCES)
    found = runs.attention_sums(model, asked, runs.ValueLengths(model), mean_pattern=mean)
    variables = {}
    for source in ("model", "uniform", *CORNERS):
        sums = getattr(found, source)
        flat = np.concatenate(
            [np.stack([_one(sums, name) for name in SENTENCE_SUMS], axis=-1), _one(sums, "tags")], axis=-1
        )
        table = np.moveaxis(by_layer(flat, found.layers, model.n_layers, axis=2), 1, 0).astype(np.float32)
        variables[f"{source}_sentence_sums"] = quantity(
            table,
            "sentence definition layer head sentence_sum",
            f"sums of attention ({source.replace('_', ' ')})",
        )
    names = [*SENTENCE_SUMS, *(f"tag {tag}" for tag in item.tags)]
    return xr.Dataset(
        variables,
        coords=_definition_and_layer(model)
        | {
            "sentence": text_coordinate([one.name for one in sentences], "sentence", "sentence"),
            "document": text_coordinate([one.sentence.document for one in sentences], "sentence", "document"),
            "sentence_sum": text_coordinate(names, "sentence_sum", "sum over queries and keys"),
        },
    )


def _tagged(sentence: TokenisedSentence, tags: Sequence[str]) -> np.ndarray:
    """Which tokens have which part of speech: every piece of a word has the word's [tag token]."""
    found = np.zeros((len(tags), len(sentence.tokens)), dtype=np.float32)
    for word, tag in enumerate(sentence.sentence.upos):
        if sentence.first[word] >= 0 and tag:
            found[tags.index(tag), sentence.first[word] : sentence.last[word] + 1] = 1
    return found


def _relations(sentence: TokenisedSentence) -> dict[str, list[tuple[int, int]]]:
    """Pairs of tokens of words of which one depends on the other, by which of them looks back."""
    to_head, to_dependent = [], []
    for word, head in enumerate(sentence.sentence.head):
        if head < 1 or sentence.first[word] < 0 or sentence.first[head - 1] < 0:
            continue
        own = range(sentence.first[word], sentence.last[word] + 1)
        above = range(sentence.first[head - 1], sentence.last[head - 1] + 1)
        to_head += [(query, key) for query in own for key in above if key < query]
        to_dependent += [(query, key) for query in above for key in own if key < query]
    return {"to head": to_head, "to dependent": to_dependent, "dependency": to_head + to_dependent}


def measure_repeats(
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
    return xr.Dataset(
        {
            f"repeat_{source}_sums": quantity(
                _table(own, SUMS, found.layers, model.n_layers),
                "sample definition layer head sum",
                f"sums of attention in repeated texts ({source.replace('_', ' ')})",
            )
            for source, own in sums.items()
        },
        coords=_definition_and_layer(model)
        | {"sum": text_coordinate(SUMS, "sum", "sum over queries and keys")},
    )
