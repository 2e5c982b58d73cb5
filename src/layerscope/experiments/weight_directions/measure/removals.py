"""What changes when the most coherent directions that matrices write are removed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence.coordinates import number_coordinate
from layerscope.experiments.weight_directions.items.edits import EditItem
from layerscope.experiments.weight_directions.measure.lexicon import numpy_generator
from layerscope.experiments.weight_directions.measure.matrices import decomposed
from layerscope.experiments.weight_directions.measure.parts import as_text
from layerscope.experiments.weight_directions.measure.vocabulary import short_texts
from layerscope.experiments.weight_directions.settings import (
    ATTENTION,
    Settings,
)
from layerscope.maths.decompositions import random_rotation
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.models.projections import Projections


def measure_edit(model: LayeredModel, item: EditItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """How far the logits of a direction's own tokens, and of others, move when it is removed."""
    from layerscope.models.projections import find_projections

    projections = find_projections(model, item.layer)
    part = "attention" if item.kind in ATTENTION else "mlp"
    one = settings.model_copy(update={"kinds": (item.kind,)})
    matrix = next(m for m in decomposed(model, projections, part, one) if m.name == item.matrix)
    side = matrix.sides[item.kind]  # type: ignore[index]
    names = ("removal", item.layer, item.kind, item.matrix, item.rank)
    control = (
        side.new_tensor(random_rotation(len(side), generator=numpy_generator(settings, *names))[0]) @ side
    )
    texts = short_texts(model, settings, item.bos)
    changes = [_changes(model, projections, item, ids, (side[item.rank], control)) for ids in texts]
    values = np.array(changes, dtype=np.float64).reshape(len(texts), 2, 2).swapaxes(0, 1)
    dims = "edit edit_text"
    return xr.Dataset(
        {
            "related_change": quantity(
                values[0, :, 0][None], dims, "change of the direction's own tokens", "nat"
            ),
            "unrelated_change": quantity(
                values[0, :, 1][None], dims, "change of other tokens as likely", "nat"
            ),
            "control_change": quantity(
                values[1, :, 0][None], dims, "change of its own tokens without a rotation of it", "nat"
            ),
            "edit_rank": quantity(np.array([item.rank]), "edit", "place of the direction in its matrix"),
        },
        coords={
            "edit_layer": number_coordinate([item.layer], "edit", "layer of the removed direction"),
            "edit_kind": as_text([item.kind], "edit", "kind of the removed direction"),
            "edit_matrix": as_text([item.matrix], "edit", "matrix of the removed direction"),
            "edit_text": number_coordinate(range(len(texts)), "edit_text", "text"),
        },
    )


def _changes(
    model: LayeredModel,
    projections: Projections,
    item: EditItem,
    ids: Sequence[int],
    directions: Sequence[Any],
) -> list[tuple[float, float]]:
    """For each direction taken out, the mean change of the logits of the item's tokens and of others as likely.

    Both less the change of all tokens.
    """
    import torch

    row = torch.tensor([list(ids)])
    before = model.logits(row)[0].float()
    order = np.argsort(before.mean(0).cpu().numpy(), kind="stable")
    own = np.array(sorted(set(item.tokens)))
    others = _as_likely(order, own)
    found = []
    for direction in directions:
        with _without(model, projections, item, direction):
            apart = model.logits(row)[0].float() - before
        moved = (apart - apart.mean(-1, keepdim=True)).abs().mean(0).cpu().numpy()
        found.append((float(moved[own].mean()), float(moved[others].mean())))
    return found


def _as_likely(order: np.ndarray, own: np.ndarray, *, each: int = 4) -> np.ndarray:
    """Tokens beside the given ones in the order of the model's own mean logits, which are not among them."""
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    taken, chosen = set(own.tolist()), []
    for token in own:
        steps = (s for distance in range(1, len(order)) for s in (distance, -distance))
        there = (order[places[token] + s] for s in steps if 0 <= places[token] + s < len(order))
        near = [int(t) for _, t in zip(range(8 * each), there, strict=False) if int(t) not in taken]
        chosen += near[:each]
        taken |= set(near[:each])
    return np.array(chosen)


def _without(
    model: LayeredModel, projections: Projections, item: EditItem, direction: Any
) -> AbstractContextManager[None]:
    if item.kind in ATTENTION:
        assert projections.heads is not None
        head = int(item.matrix.removeprefix("head "))
        return runs.without_head_direction(model, item.layer, projections.heads, head, direction)
    mlp = next(one for one in projections.mlps if (one.name or "mlp") == item.matrix)
    return runs.without_mlp_direction(model, item.layer, mlp, direction)
