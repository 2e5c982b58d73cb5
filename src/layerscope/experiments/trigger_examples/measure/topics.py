"""Would coherence see a topic that is there? Random contexts into which words of one known set are written.

As many random contexts as a key has get some tokens of one known set each, at random places before their last
token; beside them the same with tokens of all sets mixed. What coherence makes of both is its power.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope.contract import Earlier, WorkItem
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.experiments.trigger_examples.settings import Settings
from layerscope.maths.shallowness import coherence, rarity, weighted_bags
from layerscope.results.schema import quantity
from layerscope.text.token_sets import known_token_sets
from layerscope.text.token_texts import token_texts

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

WORDS = (1, 2, 4)
"""Tokens of the topic that each context is given."""
MADE = ("one topic", "mixed words")
_DRAWS, _FEWEST_TOKENS = 4, 8


def measure_topics(model: LayeredModel, item: WorkItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Coherence of contexts with a topic and with mixed words, by set and by words written into each."""
    search = earlier["search"]
    sets = known_token_sets(
        token_texts(model.tokenizer, search.sizes["token_id"]), settings.known_sets, fewest=_FEWEST_TOKENS
    )
    everything = np.unique(np.concatenate([np.zeros(0, int), *sets.values()])).astype(np.int64)
    values = np.full((len(sets), len(MADE), len(WORDS), _DRAWS), np.nan)
    contexts = _Contexts(search, settings)
    for place, tokens in enumerate(sets.values()):
        for made, words in enumerate((np.array(tokens), everything)):
            for column, number in enumerate(WORDS):
                values[place, made, column] = [
                    contexts.coherence_with(words, number, seed=(place, made, column, draw))
                    for draw in range(_DRAWS)
                ]
    return xr.Dataset(
        {"made_coherence": quantity(values, "topic made words draw", "coherence of the made contexts")},
        coords={
            "topic": text_coordinate(list(sets), "topic", "known set of words"),
            "made": text_coordinate(list(MADE), "made", "what was written into random contexts"),
            "words": number_coordinate(WORDS, "words", "tokens written into each context"),
        },
    )


class _Contexts:
    """The random contexts of a run, into which words can be written."""

    def __init__(self, search: xr.Dataset, settings: Settings) -> None:
        there = np.flatnonzero(search.random_text.values >= 0)
        self.ids, self.texts = search.random_ids.values[there], search.random_text.values[there]
        self.weights = rarity(self.ids[:, :-1], search.sizes["token_id"])
        self.size, self.seed = min(settings.top, len(there)), settings.seed

    def coherence_with(self, words: np.ndarray, number: int, *, seed: Sequence[int]) -> float:
        """Coherence of as many random contexts as a key has, each with some of these words in random places."""
        draw = np.random.default_rng([self.seed, 26, *seed])
        rows = draw.choice(len(self.ids), self.size, replace=False)
        ids = self.ids[rows].copy()
        for row in ids:
            places = np.flatnonzero(row[:-1] >= 0)
            if len(places):
                chosen = draw.permutation(places)[:number]
                row[chosen] = draw.choice(words, len(chosen), replace=False)
        bags, _ = weighted_bags(ids[:, :-1], self.weights)
        return coherence(bags, self.texts[rows]) if bags.shape[1] else float("nan")
