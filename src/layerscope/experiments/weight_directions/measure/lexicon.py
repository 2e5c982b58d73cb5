"""What every rating of one run rests on: tokens' vectors, their means and their frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.errors import LayerscopeError
from layerscope.experiments.weight_directions.measure.vocabulary import mean_embedding, shared_part_of
from layerscope.experiments.weight_directions.settings import WRITES, Settings
from layerscope.maths.coherence import CommonPart

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.runs.vocabulary import TokenRows

Side = Literal["embedding", "unembedding"]
EMBEDDINGS: tuple[Side, ...] = ("embedding", "unembedding")


@dataclass(frozen=True, eq=False)
class Lexicon:
    """What every rating of one run rests on."""

    model: LayeredModel
    vocabulary: xr.Dataset
    settings: Settings
    twin: bool = False

    @cached_property
    def common(self) -> CommonPart:
        """What the embeddings of all tokens that may be shown have in common."""
        if self.twin:
            return shared_part_of(self.model, self.vocabulary.allowed.values)
        return CommonPart(self.vocabulary.mean_embedding.values, self.vocabulary.shared_direction.values)

    @cached_property
    def centres(self) -> dict[Side, np.ndarray]:
        """By side, the mean vector of the tokens that may be shown among those that directions are held against."""
        kept = {side: self.vocabulary[f"mean_{side}"].values for side in EMBEDDINGS}
        anew = EMBEDDINGS if self.twin else () if self.settings.tokens_as == "embedding" else ("embedding",)
        allowed = self.vocabulary.allowed.values
        return kept | {side: mean_embedding(self.rows(side).rows, allowed) for side in anew}

    def rows(self, side: Side) -> TokenRows:
        """The vectors of tokens that directions of a side are held against."""
        found = runs.token_rows(self.model, side)
        if side == "unembedding" or self.settings.tokens_as == "embedding":
            return found
        return replace(found, rows=_alone(self.model), into=None)

    @cached_property
    def tokens_by_frequency(self) -> np.ndarray:
        """Tokens that may be shown, from rare to frequent; of equally many, in a random order.

        Without texts in the order of their ids, which vocabularies of merges give by frequency.
        """
        allowed = np.flatnonzero(self.vocabulary.allowed.values)
        counts = self.vocabulary.occurrences.values[allowed]
        if not counts.any():
            return np.asarray(allowed[::-1])
        chance = np.random.default_rng(self.settings.seed).random(len(allowed))
        return np.asarray(allowed[np.lexsort((chance, counts))])

    @cached_property
    def place_by_frequency(self) -> np.ndarray:
        """The place of each token in that order; 0 for tokens that are never shown."""
        places = np.zeros(self.vocabulary.sizes["entry"], np.int64)
        places[self.tokens_by_frequency] = np.arange(len(self.tokens_by_frequency))
        return places

    def as_frequent(self, ids: np.ndarray, draw: np.random.Generator, *, within: int) -> np.ndarray:
        """Of each token another that occurs about as often, at most so many places from it, drawn anew for each."""
        steps = draw.integers(1, within + 1, ids.shape) * draw.choice([-1, 1], ids.shape)
        places = np.clip(self.place_by_frequency[ids] + steps, 0, len(self.tokens_by_frequency) - 1)
        return np.asarray(self.tokens_by_frequency[places])

    def side(self, kind: str) -> Side:
        """The tokens that a kind of direction is held against."""
        return "unembedding" if kind in (*WRITES, "writes") else "embedding"


_ALONE: WeakKeyDictionary[LayeredModel, Any] = WeakKeyDictionary()
"""Tokens after the first block, of the models at hand: every work item needs them again."""


def _alone(model: LayeredModel) -> Any:
    if model not in _ALONE:
        _ALONE[model] = runs.states_of_tokens_alone(model)
    return _ALONE[model]


def numpy_generator(settings: Settings, *names: object) -> np.random.Generator:
    """Random draws that depend on nothing but their names."""
    return np.random.default_rng(runs.stream(settings.seed, *names).initial_seed())


def word_vector(lexicon: Lexicon, words: Sequence[str], side: Side) -> np.ndarray:
    """The mean of words' token vectors, less that of all tokens.

    Raises:
        LayerscopeError: a word that the tokenizer does not know.
    """
    import torch

    rows = lexicon.rows(side).rows
    tokenizer = lexicon.model.tokenizer
    found = []
    for word in words:
        options = [
            tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            for text in (f" {word}", word)
        ]
        ids: list[int] = min((one for one in options if one), key=len, default=[])
        if not ids or tokenizer.unk_token_id in ids:
            raise LayerscopeError(
                "a word to search for is not known to this tokenizer",
                found=word,
                expected="words that it can write",
                hint="--set search='red, green, blue'",
            )
        found.append(rows[ids].float().mean(0))
    mean: np.ndarray = torch.stack(found).mean(0).cpu().numpy()
    return mean - lexicon.centres[side]
