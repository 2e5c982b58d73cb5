"""From the projections of a block to the singular directions of its matrices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from layerscope.experiments.weight_directions.settings import ATTENTION, Kind, Settings
from layerscope.maths.decompositions import product_directions, read_directions, write_directions

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.models.linear_maps import Norm
    from layerscope.models.mlp_weights import MlpWeights
    from layerscope.models.projections import HeadWeights, Projections


_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Decomposed:
    """One matrix: its singular values, and its leading directions on the sides that lie in the stream.

    Attributes:
        name: "head 3", "mlp", "expert 2": its name within the layer and kind.
        scales: all singular values, largest first.
        sides: by kind, directions [k width]; two for a head, whose ends belong together.
    """

    name: str
    scales: np.ndarray
    sides: dict[Kind, Any]

    @property
    def primary(self) -> Kind:
        """The side whose stronger end is called "+"."""
        return next((kind for kind in ("OV writes", "QK asks") if kind in self.sides), next(iter(self.sides)))


def decomposed(
    model: LayeredModel, projections: Projections, part: str, settings: Settings
) -> Iterator[Decomposed]:
    """The matrices of a block's attention or MLP that the settings ask for.

    Args:
        model: the model.
        projections: of one block.
        part: "attention" or "mlp".
        settings: kinds, directions, folding.
    """
    wanted = [kind for kind in settings.kinds if (kind in ATTENTION) == (part == "attention")]
    if part == "attention" and projections.heads is not None:
        yield from _of_heads(projections.heads, wanted, settings)
    elif part == "mlp" and projections.mlps:
        for mlp in projections.mlps:
            rank = min(mlp.writes.shape)
            yield from _of_mlp(
                mlp, wanted, _each(settings, len(projections.mlps), rank), fold=settings.fold_norms
            )


def _each(settings: Settings, matrices: int, rank: int) -> int:
    """How many directions of one matrix: its part of those asked for, and never more than its leading share."""
    return max(1, min(math.ceil(settings.directions / matrices), math.ceil(settings.leading * rank)))


def _of_heads(heads: HeadWeights, wanted: list[Kind], settings: Settings) -> Iterator[Decomposed]:
    n_heads = len(heads.group)
    each = _each(settings, n_heads, heads.value.shape[-1])
    group, fold = list(heads.group), settings.fold_norms
    before = heads.before if fold else None
    if {"OV reads", "OV writes"} & set(wanted):
        values = _folded_in(heads.value, before)[group]
        outputs = _folded_out(heads.output, heads.after if fold else None)
        scales, reads, writes = product_directions(values, outputs)
        sides: dict[Kind, Any] = {"OV reads": reads, "OV writes": writes}
        yield from _by_head(scales, {kind: sides[kind] for kind in wanted if kind in sides}, each)
    product = query_key(heads, settings)
    if product is not None and {"QK asks", "QK answers"} & set(wanted):
        scales, asks, answers = product_directions(product[0], product[1].swapaxes(-1, -2))
        sides = {"QK asks": asks, "QK answers": answers}
        yield from _by_head(scales, {kind: sides[kind] for kind in wanted if kind in sides}, each)


def query_key(heads: HeadWeights, settings: Settings) -> tuple[Any, Any] | None:
    """Query and key matrices of every head [head width key_width], folded where asked; None where there are none."""
    if heads.query is None or heads.key is None:
        return None
    before = heads.before if settings.fold_norms else None
    return _folded_in(heads.query, before), _folded_in(heads.key, before)[list(heads.group)]


def _by_head(scales: Any, sides: dict[Kind, Any], each: int) -> Iterator[Decomposed]:
    for head, values in enumerate(_numpy(scales)):
        few = min(each, _real(values))
        yield Decomposed(f"head {head}", values, {kind: side[head][:few] for kind, side in sides.items()})


def _real(scales: np.ndarray) -> int:
    """How many singular values are more than rounding: directions of the others are arbitrary."""
    return int((scales > _ROUNDING * scales[0]).sum()) if scales.size and scales[0] > 0 else 0


def _of_mlp(mlp: MlpWeights, wanted: list[Kind], each: int, *, fold: bool) -> Iterator[Decomposed]:
    name = mlp.name or "mlp"
    kinds: dict[str, Kind] = {"in": "MLP reads", "gate": "MLP gates", "gate and in": "MLP reads"}
    for label, matrix in mlp.reads.items():
        if kinds.get(label) in wanted:
            found = read_directions(_folded_in(matrix, mlp.before if fold else None))
            assert found.reads is not None
            scales = _numpy(found.scales)
            yield Decomposed(name, scales, {kinds[label]: found.reads[: min(each, _real(scales))]})
    if "MLP writes" in wanted:
        found = write_directions(_folded_out(mlp.writes, mlp.after if fold else None))
        assert found.writes is not None
        scales = _numpy(found.scales)
        yield Decomposed(name, scales, {"MLP writes": found.writes[: min(each, _real(scales))]})


def _folded_in(matrix: Any, norm: Norm | None) -> Any:
    """A matrix that reads, as states before the norm meet it, but for their length."""
    if norm is None:
        return matrix
    matrix = matrix * norm.gain.to(matrix)[:, None]
    return matrix - matrix.mean(-2, keepdim=True) if norm.centres else matrix


def _folded_out(matrix: Any, norm: Norm | None) -> Any:
    """A matrix that writes, as it reaches the stream through a norm behind it, but for the length."""
    if norm is None:
        return matrix
    matrix = matrix - matrix.mean(-1, keepdim=True) if norm.centres else matrix
    return matrix * norm.gain.to(matrix)


def _numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
