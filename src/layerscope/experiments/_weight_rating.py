"""Directions as tokens at both ends, and how well these hang together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.errors import LayerscopeError
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.experiments._weight_settings import (
    COMPANY,
    OTHER,
    OWN,
    RATERS,
    SIGNS,
    SINGULAR,
    WRITES,
    Settings,
)
from layerscope.experiments._weight_vocabulary import mean_embedding, other_embedding, shared_part_of
from layerscope.maths.coherence import CommonPart, mean_pairwise_cosine
from layerscope.maths.decompositions import turned
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.runs.vocabulary import TokenRows

Side = Literal["embedding", "unembedding"]
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
        primary: whether this side decides which end is "+"; the other side of the pair is `partner`.
        partner: the block whose signs this one takes over.
        turned: which directions are turned, so that "+" is the stronger end; filled in by `rated`.
        together: first place, number of directions and tokens of every subspace of more than one; likewise.
    """

    kind: str
    matrix: str
    origin: str
    vectors: Any
    scales: np.ndarray
    gaps: np.ndarray
    subspaces: np.ndarray
    partner: Block | None = None
    turned: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    together: list[tuple[int, int, np.ndarray]] = field(default_factory=list)

    def spans(self) -> list[tuple[int, int]]:
        """First place and number of directions of every subspace of more than one."""
        here = self.subspaces[: len(self.vectors)]
        numbers, firsts, sizes = np.unique(here, return_index=True, return_counts=True)
        return [
            (int(first), int(size))
            for number, first, size in zip(numbers, firsts, sizes, strict=True)
            if number >= 0 and size > 1
        ]


@dataclass(frozen=True, eq=False)
class Ground:
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

    def centre(self, side: Side) -> np.ndarray:
        """The mean vector of the tokens that directions of a side are held against."""
        if self.twin or (side == "embedding" and self.settings.tokens_as != "embedding"):
            return self.mean_row(self.rows(side).rows)
        name = "mean_embedding" if side == "embedding" else "mean_unembedding"
        return np.asarray(self.vocabulary[name].values)

    def mean_row(self, rows: Any) -> np.ndarray:
        """The mean of the rows of the tokens that may be shown."""
        return mean_embedding(rows, self.vocabulary.allowed.values)

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

    def side(self, kind: str) -> Side:
        """The tokens that a kind of direction is held against."""
        return "unembedding" if kind in (*WRITES, "writes") else "embedding"


_ALONE: WeakKeyDictionary[LayeredModel, Any] = WeakKeyDictionary()
"""Tokens after the first block, of the models at hand: every work item needs them again."""


def _alone(model: LayeredModel) -> Any:
    if model not in _ALONE:
        _ALONE[model] = runs.states_of_tokens_alone(model)
    return _ALONE[model]


def rated(ground: Ground, blocks: Sequence[Block], layer: int) -> xr.Dataset:
    """Tokens at both ends of every direction, and their coherence by every rater.

    The two sides of a head's matrix are turned together, so that their "+" ends belong together. The tokens
    of near-equal directions are left in their blocks.
    """
    import torch

    allowed = torch.tensor(ground.vocabulary.allowed.values)
    tokens, scores, towards = {}, {}, {}
    by_cosine = ground.settings.tokens_by == "cosine"
    sides: tuple[Side, ...] = ("embedding", "unembedding")
    for side in sides:
        here = [block for block in blocks if ground.side(block.kind) == side and len(block.vectors)]
        if not here:
            continue
        rows = ground.rows(side)
        joined = torch.cat([block.vectors.float() for block in here])
        met = runs.towards_tokens(joined, rows, fold=ground.settings.fold_norms)
        met = torch.nn.functional.normalize(met, dim=-1) if by_cosine else met
        found = runs.strongest_tokens(
            met,
            rows.rows,
            allowed=allowed,
            top=ground.settings.top_tokens,
            megabytes=ground.settings.megabytes,
            groups=torch.from_numpy(_groups(here)),
            centre=torch.from_numpy(ground.centre(side)) if by_cosine else None,
        )
        together = iter(found.together.numpy())
        start = 0
        for block in here:
            at = slice(start, start + len(block.vectors))
            start = at.stop
            tokens[id(block)], scores[id(block)] = found.tokens[at].numpy(), found.scores[at].numpy()
            towards[id(block)] = met[at]
            block.together = [(first, size, next(together)) for first, size in block.spans()]
            block.turned = turned(
                np.ones(len(block.vectors)),
                positive=found.largest[at].numpy(),
                negative=found.smallest[at].numpy(),
            )
    there = [block for block in blocks if len(block.vectors)]
    for block in there:
        flip = (block.partner or block).turned
        tokens[id(block)][flip] = tokens[id(block)][flip, ::-1]
        scores[id(block)][flip] = -scores[id(block)][flip, ::-1]
    parts = [_part(ground, block, layer, tokens, scores, towards) for block in there]
    return joined_parts(parts, ground.settings)


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


def _part(
    ground: Ground,
    block: Block,
    layer: int,
    tokens: dict[int, Any],
    scores: dict[int, Any],
    towards: dict[int, Any],
) -> dict[str, np.ndarray]:
    k = len(block.vectors)
    flip = np.where((block.partner or block).turned, -1, 1)
    ids = tokens[id(block)]
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
        "strength": (scores[id(block)] * np.array([1, -1])[None, :, None]).astype(np.float32),
        "coherence": coherence(ground, ids),
        "matched_coherence": coherence(ground, _matched(ground, ids, block, layer))
        if block.origin == SINGULAR
        else np.full((k, 2, len(RATERS)), np.nan, np.float32),
        "answer": _answers(ground, towards[id(block)], block.kind) * flip,
    }


def numpy_generator(settings: Settings, *names: object) -> np.random.Generator:
    """Random draws that depend on nothing but their names."""
    return np.random.default_rng(runs.stream(settings.seed, *names).initial_seed())


def _matched(ground: Ground, ids: np.ndarray, block: Block, layer: int) -> np.ndarray:
    """Other tokens that occur about as often, one for each: a control for what frequency alone gives."""
    draw = numpy_generator(ground.settings, "matched", layer, block.kind, block.matrix)
    places = ground.place_by_frequency[ids]
    steps = draw.integers(1, _NEIGHBOURS + 1, ids.shape) * draw.choice([-1, 1], ids.shape)
    beside = np.clip(places + steps, 0, len(ground.tokens_by_frequency) - 1)
    return np.asarray(ground.tokens_by_frequency[beside])


def coherence(ground: Ground, ids: np.ndarray) -> np.ndarray:
    """[direction sign rater]: mean pairwise cosine of the tokens at an end; NaN where a rater cannot tell."""
    result = np.full((*ids.shape[:2], len(RATERS)), np.nan, dtype=np.float32)
    for start in range(0, len(ids), _AT_ONCE):
        at = slice(start, start + _AT_ONCE)
        for place, (vectors, known) in enumerate(_vectors(ground, ids[at])):
            if vectors is not None:
                result[at, :, place] = mean_pairwise_cosine(vectors, known=known)
    return result


def _vectors(ground: Ground, ids: np.ndarray) -> Iterator[tuple[np.ndarray | None, np.ndarray | None]]:
    """For each rater: vectors of the tokens, and which are known."""
    own = ground.model.module.get_input_embeddings().weight.detach()
    yield ground.common.taken_from(own[ids].float().cpu().numpy()), None
    company = ground.vocabulary.company.values
    if company.any():
        yield company[ids], ground.vocabulary.occurrences.values[ids] > 1
    else:
        yield None, None
    if ground.settings.other_embedding:
        other, known = other_embedding(ground.model, ground.settings.other_embedding, len(own))
        yield other[ids], known[ids]
    else:
        yield None, None


def _answers(ground: Ground, towards: Any, kind: str) -> np.ndarray:
    """Cosine of each direction with the mean of the words that are searched for; NaN without a search."""
    words = [word.strip() for word in ground.settings.search.split(",") if word.strip()]
    if not words or kind in ("reads", "writes"):
        return np.full(len(towards), np.nan)
    query = word_vector(ground, words, ground.side(kind))
    directions = towards.float().cpu().numpy()
    lengths = np.linalg.norm(directions, axis=1) * np.linalg.norm(query)
    return directions @ query / np.where(lengths > 0, lengths, 1)


def word_vector(ground: Ground, words: Sequence[str], side: Side) -> np.ndarray:
    """The mean of words' token vectors, less that of all tokens.

    Raises:
        LayerscopeError: a word that the tokenizer does not know.
    """
    import torch

    rows = ground.rows(side).rows
    tokenizer = ground.model.tokenizer
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
    return mean - ground.mean_row(rows)


_WORDS = {
    "direction_layer": ("direction", "layer of the direction"),
    "direction_kind": ("direction", "what the direction is of"),
    "direction_matrix": ("direction", "matrix of the direction"),
    "origin": ("direction", "singular direction, or which control"),
}
_NUMBERS = {
    "rank": ("direction", "place among the matrix's singular values", "1"),
    "scale": ("direction", "singular value", "1"),
    "gap": ("direction", "singular value over the next", "1"),
    "subspace": ("direction", "subspace of near-equal singular values, -1 for controls", "1"),
    "top_token": ("direction sign place", "id of a token at the end of a direction", "1"),
    "strength": ("direction sign place", "score of the token, in standard deviations of all tokens", "1"),
    "coherence": ("direction sign rater", "mean pairwise cosine of the tokens at an end", "1"),
    "matched_coherence": ("direction sign rater", "the same of other tokens that occur about as often", "1"),
    "answer": ("direction", "cosine with the words searched for", "1"),
}


def joined_parts(parts: Sequence[dict[str, np.ndarray]], settings: Settings) -> xr.Dataset:
    """The rows of several blocks as one Dataset along `direction`."""
    empty: dict[str, np.ndarray] = {
        "top_token": np.zeros((0, 2, settings.top_tokens), np.int32),
        "strength": np.zeros((0, 2, settings.top_tokens), np.float32),
        "coherence": np.zeros((0, 2, len(RATERS)), np.float32),
        "matched_coherence": np.zeros((0, 2, len(RATERS)), np.float32),
        "direction_layer": np.zeros(0, np.int64),
        "rank": np.zeros(0, np.int64),
        "subspace": np.zeros(0, np.int64),
    }

    def column(name: str) -> np.ndarray:
        given = [part[name] for part in parts]
        if given:
            return np.concatenate(given)
        return empty.get(name, np.zeros(0, "U1" if name in _WORDS else np.float64))

    variables = {
        name: quantity(column(name), dims, what, unit) for name, (dims, what, unit) in _NUMBERS.items()
    }
    coordinates = {
        name: (
            number_coordinate(column(name), dims, what)
            if name == "direction_layer"
            else xr.Variable((dims,), column(name).astype(str), {"long_name": what})
        )
        for name, (dims, what) in _WORDS.items()
    }
    return xr.Dataset(
        variables,
        coords=coordinates
        | {
            "sign": text_coordinate(list(SIGNS), "sign", "end of a direction; + stands out further"),
            "place": number_coordinate(
                range(settings.top_tokens), "place", "place of a token, strongest first"
            ),
            "rater": text_coordinate(
                [OWN, COMPANY, OTHER], "rater", "whose vectors of the tokens are compared"
            ),
        },
    )
