"""The matrices of an MLP, and which of its columns are the gate, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from layerscope.models.layered import LayeredModel
from layerscope.models.linear_maps import LinearMap, Norm, trace_block

Columns = dict[str, Tensor]
"""Column numbers by kind: "in", or "gate" and "in"."""


@dataclass(frozen=True, eq=False)
class MlpWeights:
    """The matrices of an MLP or of one expert; a state stands to their left, as in x·reads["in"].

    Attributes:
        name: empty for the block's one MLP; "expert 3", or "shared" for the expert of all tokens.
        reads: from the (normed) state to the units: "in", and "gate" where units are gated.
        read_biases: added to them.
        writes: from the units to the vector that the MLP adds, before `after`.
        write_bias: added once.
        before, before_known, after: as of `HeadWeights`.
        output_map: the module of the output projection, for edits; None where experts share one.
    """

    name: str
    reads: dict[str, Float[Tensor, "width unit"]]
    read_biases: dict[str, Float[Tensor, "unit"]]
    writes: Float[Tensor, "unit width"]
    write_bias: Float[Tensor, "width"]
    before: Norm | None
    before_known: bool
    after: Norm | None
    output_map: nn.Module | None


def halves(columns: int) -> Iterator[Columns]:
    """The ways in which families lay a gate and what it gates into one matrix."""
    index = torch.arange(columns)
    first, second, even, odd = index[: columns // 2], index[columns // 2 :], index[::2], index[1::2]
    yield {"gate": first, "in": second}
    yield {"gate": even, "in": odd}
    yield {"gate": second, "in": first}
    yield {"gate": odd, "in": even}


def straight(behind: Float[Tensor, "3 unit"], *, tolerance: float = 1e-3) -> bool:
    """Whether what lies behind changes along a straight line as a factor goes from -1 over 0 to 1.

    What is only multiplied does, what passes an activation does not.
    """
    below, middle, above = behind.double()
    bend = (above + below - 2 * middle).abs().max()
    return bool((bend <= tolerance * (above - below).abs().max()).item()) and bool((above != below).any())


def gate_and_in(
    model: LayeredModel, layer: int, reading: list[LinearMap], out: LinearMap
) -> dict[str, tuple[Tensor, Tensor]] | None:
    """Matrix and bias of what an MLP reads by, by kind; None where the gate cannot be told.

    Args:
        model: the model.
        layer: the block.
        reading: the one or two maps that feed the units; one map may hold both kinds side by side.
        out: the output projection.
    """
    units = out.matrix.shape[0]
    if len(reading) == 1 and reading[0].matrix.shape[1] == units:
        return {"in": (reading[0].matrix, reading[0].bias)}
    if len(reading) == 2:
        for gate, other in (reading, reading[::-1]):
            if _goes_in_straight(model, layer, {other.name: slice(None)}, reading, out):
                return {"gate": (gate.matrix, gate.bias), "in": (other.matrix, other.bias)}
        return None
    for columns in halves(2 * units):
        if _goes_in_straight(model, layer, {reading[0].name: columns["in"]}, reading, out):
            both = reading[0]
            return {kind: (both.matrix[:, at], both.bias[at]) for kind, at in columns.items()}
    return None


def _goes_in_straight(
    model: LayeredModel,
    layer: int,
    scaled: dict[str, slice | Tensor],
    reading: list[LinearMap],
    out: LinearMap,
) -> bool:
    """Whether the units change along a straight line as these columns are scaled by -1, 0 and 1."""
    generator = torch.Generator().manual_seed(11)

    def written(one: LinearMap) -> Callable[[Tensor], Tensor]:
        numbers = torch.randn(one.matrix.shape[1], generator=generator).to(model.device).repeat(3, 1)
        if one.name in scaled:
            numbers[:, scaled[one.name]] *= torch.tensor([[-1.0], [0.0], [1.0]]).to(numbers)
        return lambda _: numbers

    replaced = {one.name: written(one) for one in reading}
    trace = trace_block(model, layer, rows=3, replaced=replaced)
    units = trace.inputs[out.name].reshape(3, -1)
    return straight(units, tolerance=1e-3 if units.element_size() >= 4 else 5e-2)
