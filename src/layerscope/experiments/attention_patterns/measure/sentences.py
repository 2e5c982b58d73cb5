"""Attention along dependencies and by part of speech, sentence by sentence of a treebank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import named, samples, text_coordinate
from layerscope.experiments.attention_patterns.items import SENTENCES, SentencesItem
from layerscope.experiments.attention_patterns.measure.tables import (
    CORNERS,
    definition_and_layer,
    mean_pattern,
    one_sum,
    parted,
)
from layerscope.experiments.attention_patterns.settings import Settings
from layerscope.text.tokenised_words import TokenisedSentence

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

SENTENCE_SUMS = ("every", "dependency", "to head", "to dependent")


def sums_of_sentences(
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
    mean = mean_pattern(earlier["means"], SENTENCES)
    found = runs.attention_sums(model, asked, runs.ValueLengths(model), mean_pattern=mean)
    tables = [
        named(
            _of_words(getattr(found, source), found.layers, model.n_layers),
            f"{source}_sentence_sums",
            f"sums of attention ({source.replace('_', ' ')})",
            dims=("sentence", "definition", "layer", "head", "sentence_sum"),
        )
        for source in ("model", "uniform", *CORNERS)
    ]
    names = [*SENTENCE_SUMS, *(f"tag {tag}" for tag in item.tags)]
    return samples(
        *tables,
        **definition_and_layer(model),
        sentence=text_coordinate([one.name for one in sentences], "sentence", "sentence"),
        document=text_coordinate([one.sentence.document for one in sentences], "sentence", "document"),
        sentence_sum=text_coordinate(names, "sentence_sum", "sum over queries and keys"),
    )


def _of_words(sums: Mapping[str, Any], layers: Sequence[int], n_layers: int) -> np.ndarray:
    """Sums along dependencies, then by part of speech [sentence definition layer head sum]."""
    related = np.stack([one_sum(sums, name) for name in SENTENCE_SUMS], axis=-1)
    return parted(np.concatenate([related, one_sum(sums, "tags")], axis=-1), layers, n_layers)


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
