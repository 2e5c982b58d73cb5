"""The stage of words: everything about the chosen sentences that a probe can be asked, and their token ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from layerscope.evidence import text_coordinate
from layerscope.experiments.syntax_probe.items.design import head_place
from layerscope.experiments.syntax_probe.items.sentences import SentencesItem
from layerscope.results.schema import quantity


def words_of(item: SentencesItem, *, final_punctuation: bool, subtypes: bool) -> xr.Dataset:
    """Everything about some sentences that a probe can be asked, and their token ids."""
    sentences = [tokenised.sentence for tokenised in item.sentences]
    relations = [relation if subtypes else relation.split(":")[0] for s in sentences for relation in s.deprel]
    coarse = [tag for s in sentences for tag in _tags(s.upos, final_punctuation)]
    fine = [tag for s in sentences for tag in _tags(s.xpos, final_punctuation and any(s.xpos), s.upos)]
    numbers = {
        "sentence_tokens": ([len(t.tokens) for t in item.sentences], "sentence", "tokens"),
        "sentence_words": ([len(s.spans) for s in sentences], "sentence", "words"),
        "sentence_draws": (item.draws, "sentence", "draws as bits, −1: tested on"),
        "token_id": ([i for t in item.sentences for i in t.tokens.ids], "token", "token id"),
        "first": ([p for t in item.sentences for p in t.first], "word", "position of the first token"),
        "last": ([p for t in item.sentences for p in t.last], "word", "position of the last token"),
    }
    texts = {
        "sentence": ([s.name for s in sentences], "sentence", "sentence"),
        "sentence_document": ([s.document for s in sentences], "sentence", "document"),
        "sentence_genre": ([s.genre for s in sentences], "sentence", "genre of the document"),
        "form": ([form for s in sentences for form in s.forms], "word", "the word as it is written"),
        "upos": (coarse, "word", "part of speech"),
        "xpos": (fine, "word", "fine part of speech"),
        "deprel": (relations, "word", "relation to the head"),
        "head": ([place for s in sentences for place in _heads(s.head)], "word", "where the head stands"),
        "left_out": ([why for t in item.sentences for why in t.left_out], "word", "why it is left out"),
    }
    return xr.Dataset(
        {
            name: quantity(np.asarray(values, dtype=np.int64), dimension, what)
            for name, (values, dimension, what) in numbers.items()
        },
        coords={
            name: text_coordinate(values, dimension, what)
            for name, (values, dimension, what) in texts.items()
        },
    )


def _tags(tags: Sequence[str], final: bool, upos: Sequence[str] | None = None) -> list[str]:
    """Tags, with a label of its own for the punctuation that ends the sentence, as in the grammar post."""
    found = list(tags)
    if final and found and (upos or tags)[-1] == "PUNCT":
        found[-1] = "FINAL"
    return found


def _heads(heads: Sequence[int]) -> list[str]:
    """Where each word's head stands, seen from the word; "" where the treebank has no head."""
    places = [0 if head == 0 else head - number for number, head in enumerate(heads, start=1)]
    return [head_place(place) if head >= 0 else "" for place, head in zip(places, heads, strict=True)]
