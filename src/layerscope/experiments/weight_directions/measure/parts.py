"""One block's matrices, taken apart and rated, and the controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import xarray as xr

from layerscope.contract import Earlier, WorkItem
from layerscope.evidence.coordinates import number_coordinate
from layerscope.experiments.weight_directions.items import PartItem, parts_asked_for
from layerscope.experiments.weight_directions.measure.lexicon import Lexicon, numpy_generator
from layerscope.experiments.weight_directions.measure.made import made_directions
from layerscope.experiments.weight_directions.measure.matrices import Decomposed, decomposed
from layerscope.experiments.weight_directions.measure.pairs import joined_pairs
from layerscope.experiments.weight_directions.measure.rating import Block, rated
from layerscope.experiments.weight_directions.measure.vocabulary import vocabulary
from layerscope.experiments.weight_directions.settings import (
    RANDOM,
    ROTATED,
    SIDES,
    SINGULAR,
    Settings,
)
from layerscope.maths.decompositions import gaps, near_equal, random_directions, random_rotation
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.models.projections import Projections

GROWING = ("direction", "together", "lack", "pair")


def measure_vocabulary(
    model: LayeredModel, item: WorkItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """See `_weight_vocabulary`. Packed weights are refused here, before anything is computed."""
    from layerscope.models.projections import refuse_packed

    for layer, block in enumerate(model.blocks):
        refuse_packed(model, block, f"layer {layer}")
    refuse_packed(model, model.module, "the embeddings")
    return vocabulary(model, settings)


def measure_random(model: LayeredModel, item: WorkItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Random directions, shown and rated like any other: what chance looks like to each rater."""
    return rated(Lexicon(model, earlier["vocabulary"], settings), _random_blocks(model, settings), layer=-1)


def _random_blocks(model: LayeredModel, settings: Settings) -> list[Block]:
    import torch

    number, blocks = settings.random_directions, []
    for side in SIDES:
        drawn = random_directions(
            number, model.facts.width, generator=numpy_generator(settings, "random", side)
        )
        vectors = torch.tensor(drawn, dtype=torch.float32, device=model.device)
        blocks.append(Block(side, "", RANDOM, vectors, *_no_scales(number)))
    return blocks


def measure_part(model: LayeredModel, item: PartItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Singular directions of a part and rotations of them, with what was not found."""
    lexicon = Lexicon(model, earlier["vocabulary"], settings)
    return _measured(lexicon, _projections(model, item, settings), item.part)


_LAST: WeakKeyDictionary[LayeredModel, Projections] = WeakKeyDictionary()
"""Projections found for the attention of a block, kept for its MLP, which comes next."""


def _projections(model: LayeredModel, item: PartItem, settings: Settings) -> Projections:
    from layerscope.models.projections import find_projections

    kept = _LAST.pop(model, None)
    if item.part == "mlp" and kept is not None and kept.layer == item.layer:
        return kept
    found = find_projections(model, item.layer)
    if item.part == "attention" and len(parts_asked_for(settings)) == 2:
        _LAST[model] = found
    return found


def _measured(lexicon: Lexicon, projections: Projections, part: str) -> xr.Dataset:
    settings, layer = lexicon.settings, projections.layer
    lacking = _lacking(projections, part, settings)
    known = not any(why.startswith("the norm") for _, why in lacking)
    matrices = list(decomposed(lexicon.model, projections, part, settings)) if known else []
    blocks = _blocks(matrices, settings, layer)
    directions = rated(lexicon, blocks, layer)
    parts = [directions, _together(blocks, layer, settings), _lacks(lacking, layer)]
    return xr.merge([*parts, joined_pairs(lexicon, projections, directions)])


def _lacking(projections: Projections, part: str, settings: Settings) -> list[tuple[str, str]]:
    names = {"attention": "attention", "queries and keys": "attention", "mlp": "mlp"}
    wanted = {"queries and keys": {"QK asks", "QK answers"}, "attention": {"OV reads", "OV writes"}}
    found = [
        (name, why)
        for name, why in projections.missing.items()
        if names[name] == part and (name == "mlp" or wanted[name] & set(settings.kinds))
    ]
    here = projections.heads if part == "attention" else (projections.mlps[0] if projections.mlps else None)
    if settings.fold_norms and here is not None and not here.before_known:
        found.append(
            (part, "the norm that states pass before they are read was not found, so nothing is folded in")
        )
    return found


def _lacks(lacking: Sequence[tuple[str, str]], layer: int) -> xr.Dataset:
    def column(values: list[str], what: str) -> xr.Variable:
        return quantity(np.array(values, dtype=str), "lack", what)

    return xr.Dataset(
        {
            "lack_part": column([name for name, _ in lacking], "part of a layer that was left out"),
            "lack_why": column([why for _, why in lacking], "why it was left out"),
        },
        coords={"lack_layer": number_coordinate([layer] * len(lacking), "lack", "layer of the part")},
    )


def _blocks(matrices: Sequence[Decomposed], settings: Settings, layer: int) -> list[Block]:
    blocks: list[Block] = []
    for matrix in matrices:
        primary: Block | None = None
        for kind in sorted(matrix.sides, key=lambda kind: kind != matrix.primary):
            side = matrix.sides[kind]
            if not (k := len(side)):
                continue
            groups = near_equal(matrix.scales, ratio=settings.near)
            block = Block(
                kind, matrix.name, SINGULAR, side, matrix.scales, gaps(matrix.scales), groups, primary
            )
            primary = primary or block
            blocks.append(block)
            alike = sum(kind in other.sides for other in matrices)
            number = min(k, math.ceil(settings.rotations / alike))
            if number:
                names = ("rotation", layer, kind, matrix.name)
                rotation = random_rotation(k, generator=numpy_generator(settings, *names))[:number]
                turned = side.new_tensor(rotation) @ side
                blocks.append(Block(kind, matrix.name, ROTATED, turned, *_no_scales(number)))
    return blocks


def _no_scales(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    nothing = np.full(number, np.nan)
    return nothing, nothing, np.full(number, -1)


def _together(blocks: Sequence[Block], layer: int, settings: Settings) -> xr.Dataset:
    """Subspaces of two or more near-equal directions, as the tokens nearest to them whatever their basis."""
    found = [(block.kind, block.matrix, *span) for block in blocks for span in block.together]
    ids = np.array([one[4] for one in found], np.int32).reshape(len(found), settings.top_tokens)
    return xr.Dataset(
        {
            "together_token": quantity(ids, "together place", "id of a token near the subspace"),
            "together_first": quantity(
                np.array([one[2] for one in found], np.int64), "together", "first place of the subspace"
            ),
            "together_size": quantity(
                np.array([one[3] for one in found], np.int64), "together", "directions in it"
            ),
        },
        coords={
            "together_layer": number_coordinate([layer] * len(found), "together", "layer of the subspace"),
            "together_kind": as_text([one[0] for one in found], "together", "what the subspace is of"),
            "together_matrix": as_text([one[1] for one in found], "together", "matrix of the subspace"),
        },
    )


def as_text(values: list[str], dimension: str, what: str) -> xr.Variable:
    """Text along a dimension, which may have no entries."""
    return xr.Variable((dimension,), np.array(values, dtype=str), {"long_name": what})


def measure_twin(model: LayeredModel, item: WorkItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The same of a model of the same shape that was never trained, with its own tokens and random directions."""
    from layerscope.models.projections import find_projections
    from layerscope.models.untrained import untrained_twin

    twin = untrained_twin(model, settings.seed)
    lexicon = Lexicon(twin, earlier["vocabulary"], settings, twin=True)
    number = min(settings.untrained_layers, model.n_layers)
    parts = [
        rated(lexicon, _random_blocks(twin, settings), layer=-1),
        made_directions(lexicon).drop_vars(["set_name", "set_size"]),
    ]
    for layer in np.unique(np.linspace(0, model.n_layers - 1, number).round().astype(int)):
        projections = find_projections(twin, int(layer))
        for part, _ in parts_asked_for(settings):
            matrices = list(decomposed(twin, projections, part, settings))
            parts.append(rated(lexicon, _blocks(matrices, settings, int(layer)), int(layer)))
    return xr.concat(
        parts, dim="direction", data_vars="minimal", coords="minimal", compat="override", join="override"
    )
