"""Directions as tokens at both ends, and how coherent these are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.experiments.weight_directions.measure.lexicon import (
    EMBEDDINGS,
    Lexicon,
    Side,
    numpy_generator,
    word_vector,
)
from layerscope.experiments.weight_directions.measure.rows import joined_parts
from layerscope.experiments.weight_directions.measure.vocabulary import other_embedding
from layerscope.experiments.weight_directions.settings import RATERS, SIDES, SINGULAR
from layerscope.maths.coherence import mean_pairwise_cosine
from layerscope.maths.decompositions import turned

_AT_ONCE, _NEIGHBOURS = 256, 20


@dataclass(eq=False)
class Block:
    """Directions of one side of one matrix, or a control, with what is known about each row.

    Attributes:
        kind: such as "OV writes"; for random directions the side of the vocabulary.
        matrix: "head 3", "mlp"; empty for random directions.
        origin: singular, rotated, random.
        vectors: [k width], on the model's device.
        scales, gaps: singular values and their ratio to the next; NaN for controls.
        subspaces: the subspace of near-equal values that each belongs to, from 0; -1 for controls.
        partner: the other side of the same matrix, which decides which end is "+"; None where this one does.

    Filled in by `rated`:
        turned: which directions are turned, so that "+" is the stronger end.
        together: first place, number of directions and tokens of every subspace of more than one.
        tokens, scores: of the tokens at both ends [k sign place].
        towards: the directions as tokens' vectors meet them [k width].
    """

    kind: str
    matrix: str
    origin: str
    vectors: Any
    scales: np.ndarray
    gaps: np.ndarray
    subspaces: np.ndarray
    partner: Block | None = None
    turned: np.ndarray = field(init=False)
    together: list[tuple[int, int, np.ndarray]] = field(init=False, default_factory=list)
    tokens: np.ndarray = field(init=False)
    scores: np.ndarray = field(init=False)
    towards: Any = field(init=False)

    def spans(self) -> list[tuple[int, int]]:
        """First place and number of directions of every subspace of more than one."""
        here = self.subspaces[: len(self.vectors)]
        numbers, firsts, sizes = np.unique(here, return_index=True, return_counts=True)
        return [
            (int(first), int(size))
            for number, first, size in zip(numbers, firsts, sizes, strict=True)
            if number >= 0 and size > 1
        ]


def rated(lexicon: Lexicon, blocks: Sequence[Block], layer: int) -> xr.Dataset:
    """Tokens at both ends of every direction, and their coherence by every rater.

    The two sides of a head's matrix are turned together, so that their "+" ends belong together. The tokens
    of near-equal directions are left in their blocks.
    """
    there = [block for block in blocks if len(block.vectors)]
    for side in EMBEDDINGS:
        if here := [block for block in there if lexicon.side(block.kind) == side]:
            _show(lexicon, side, here)
    for block in there:
        flip = (block.partner or block).turned
        block.tokens[flip] = block.tokens[flip, ::-1]
        block.scores[flip] = -block.scores[flip, ::-1]
    return joined_parts([_part(lexicon, block, layer) for block in there], lexicon.settings)


def _show(lexicon: Lexicon, side: Side, blocks: Sequence[Block]) -> None:
    """Find the tokens of all directions of one side of the vocabulary at once, and which end is the stronger."""
    import torch

    rows, settings = lexicon.rows(side), lexicon.settings
    by_cosine = settings.tokens_by == "cosine"
    met = runs.towards_tokens(
        torch.cat([block.vectors.float() for block in blocks]), rows, fold=settings.fold_norms
    )
    met = torch.nn.functional.normalize(met, dim=-1) if by_cosine else met
    found = runs.strongest_tokens(
        met,
        rows.rows,
        allowed=torch.from_numpy(lexicon.vocabulary.allowed.values),
        top=settings.top_tokens,
        megabytes=settings.megabytes,
        groups=torch.from_numpy(_groups(blocks)),
        centre=torch.from_numpy(lexicon.centres[side]) if by_cosine else None,
    )
    together = iter(found.together.numpy())
    start = 0
    for block in blocks:
        at = slice(start, start := start + len(block.vectors))
        block.tokens, block.scores = found.tokens[at].numpy(), found.scores[at].numpy()
        block.towards = met[at]
        block.together = [(first, size, next(together)) for first, size in block.spans()]
        block.turned = turned(
            np.ones(len(block.vectors)),
            positive=found.largest[at].numpy(),
            negative=found.smallest[at].numpy(),
        )


def _groups(blocks: Sequence[Block]) -> np.ndarray:
    """The subspace of each direction of all blocks, numbered in order; -1 where it stands alone."""
    groups, number = [], 0
    for block in blocks:
        here = np.full(len(block.vectors), -1)
        for first, size in block.spans():
            here[first : first + size] = number
            number += 1
        groups.append(here)
    return np.concatenate(groups)


def _part(lexicon: Lexicon, block: Block, layer: int) -> dict[str, np.ndarray]:
    k, ids = len(block.vectors), block.tokens
    flip = np.where((block.partner or block).turned, -1, 1)
    return {
        "direction_layer": np.full(k, layer),
        "direction_kind": np.array([block.kind] * k),
        "direction_matrix": np.array([block.matrix] * k),
        "origin": np.array([block.origin] * k),
        "rank": np.arange(k),
        "scale": block.scales[:k].astype(np.float64),
        "gap": block.gaps[:k].astype(np.float64),
        "subspace": block.subspaces[:k],
        "top_token": ids.astype(np.int32),
        "strength": (block.scores * np.array([1, -1])[None, :, None]).astype(np.float32),
        "coherence": coherence(lexicon, ids),
        "matched_coherence": coherence(lexicon, _matched(lexicon, ids, block, layer))
        if block.origin == SINGULAR
        else np.full((k, 2, len(RATERS)), np.nan, np.float32),
        "answer": _answers(lexicon, block.towards, block.kind) * flip,
    }


def _matched(lexicon: Lexicon, ids: np.ndarray, block: Block, layer: int) -> np.ndarray:
    """Other tokens that occur about as often, one for each: a control for what frequency alone gives."""
    draw = numpy_generator(lexicon.settings, "matched", layer, block.kind, block.matrix)
    return lexicon.as_frequent(ids, draw, within=_NEIGHBOURS)


def coherence(lexicon: Lexicon, ids: np.ndarray) -> np.ndarray:
    """[direction sign rater]: mean pairwise cosine of the tokens at an end; NaN where a rater cannot tell."""
    result = np.full((*ids.shape[:2], len(RATERS)), np.nan, dtype=np.float32)
    for start in range(0, len(ids), _AT_ONCE):
        at = slice(start, start + _AT_ONCE)
        for place, (vectors, known) in enumerate(_vectors(lexicon, ids[at])):
            if vectors is not None:
                result[at, :, place] = mean_pairwise_cosine(vectors, known=known)
    return result


def _vectors(lexicon: Lexicon, ids: np.ndarray) -> Iterator[tuple[np.ndarray | None, np.ndarray | None]]:
    """For each rater: vectors of the tokens, and which are known."""
    own = lexicon.model.module.get_input_embeddings().weight.detach()
    yield lexicon.common.taken_from(own[ids].float().cpu().numpy()), None
    company = lexicon.vocabulary.company.values
    if company.any():
        yield company[ids], lexicon.vocabulary.occurrences.values[ids] > 1
    else:
        yield None, None
    if lexicon.settings.other_embedding:
        other, known = other_embedding(lexicon.model, lexicon.settings.other_embedding, len(own))
        yield other[ids], known[ids]
    else:
        yield None, None


def _answers(lexicon: Lexicon, towards: Any, kind: str) -> np.ndarray:
    """Cosine of each direction with the mean of the words that are searched for; NaN without a search."""
    words = [word.strip() for word in lexicon.settings.search.split(",") if word.strip()]
    if not words or kind in SIDES:
        return np.full(len(towards), np.nan)
    query = word_vector(lexicon, words, lexicon.side(kind))
    directions = towards.float().cpu().numpy()
    lengths = np.linalg.norm(directions, axis=1) * np.linalg.norm(query)
    return directions @ query / np.where(lengths > 0, lengths, 1)
