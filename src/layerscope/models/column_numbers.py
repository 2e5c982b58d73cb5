"""Numbers that maps write instead of their outputs, so that where one comes out tells which column went in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from layerscope.models.layered import LayeredModel
from layerscope.models.linear_maps import LinearMap

_BASE, _CHECKS = 100, 3


class MissingPart(Exception):  # noqa: N818 - not an error: a part of the block is not there
    """Why a part of a block was not found."""


@dataclass(frozen=True, eq=False)
class Fed:
    """Which numbered column reached each entry, times which factor; `known` where it is a plain copy."""

    columns: Tensor
    factors: Tensor
    known: Tensor


class Numbers:
    """Numbers that tell columns apart: digits of the column's number, one row each, and rows that check.

    Row 0 holds ones, so that a factor on the way is seen; digits are at most 100, which every floating
    type holds exactly; the last rows hold random numbers of both signs, so that neither a state nor an
    activation passes for a copy.
    """

    def __init__(self, maps: dict[str, LinearMap], model: LayeredModel) -> None:
        self.maps, self.starts = maps, {}
        total = 0
        for name, one in maps.items():
            self.starts[name] = total
            total += one.matrix.shape[1]
        digits = (len(str(total)) + 1) // 2
        index = torch.arange(total)
        rows = [torch.ones(total)]
        rows += [((index // _BASE**place) % _BASE + 1).float() for place in range(digits)]
        generator = torch.Generator().manual_seed(7)
        for _ in range(_CHECKS):
            signs = torch.randint(0, 2, (total,), generator=generator) * 2 - 1
            rows.append((torch.randint(2, _BASE, (total,), generator=generator) * signs).float())
        self.codes, self.digits = torch.stack(rows).to(model.device), digits

    def written(self, name: str) -> Callable[[Tensor], Tensor]:
        """What a map writes instead of its output."""
        start, width = self.starts[name], self.maps[name].matrix.shape[1]
        return lambda _: self.codes[:, start : start + width]

    def read(self, arrived: Tensor) -> Fed:
        """Which columns arrived. [row entry] to one column for each entry."""
        arrived = arrived.double()
        factors = arrived[0]
        digits = (arrived[1 : 1 + self.digits] / factors).round() - 1
        places = _BASE ** torch.arange(self.digits, device=arrived.device, dtype=torch.float64)
        columns = (digits * places[:, None]).sum(0)
        inside = columns.isfinite() & (columns >= 0) & (columns < self.codes.shape[1])
        columns = columns.where(inside, torch.zeros_like(columns)).long()
        expected = self.codes[:, columns].double() * factors
        fits = ((arrived - expected).abs() <= 1e-2 * factors.abs()).all(0)
        return Fed(columns, factors, inside & fits)

    def owners(self, columns: Tensor) -> dict[str, None]:
        """Names of the maps that the columns belong to, in order."""
        distinct = sorted(set(columns.flatten().tolist()))
        return dict.fromkeys(self._owner(int(column)) for column in distinct)

    def _owner(self, column: int) -> str:
        return max((start, name) for name, start in self.starts.items() if start <= column)[1]

    def weights(self, columns: Tensor, factors: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """The columns' weights [head width entry] and biases [head entry], as float32 or finer."""
        matrices, biases = [], []
        for one, factor in zip(columns.reshape(heads, -1), factors.reshape(heads, -1), strict=True):
            names = list(self.owners(one))
            if len(names) != 1:
                raise MissingPart("one head takes its entries from several maps")
            local, found = one - self.starts[names[0]], self.maps[names[0]]
            matrix, bias = floats(found.matrix)[:, local], floats(found.bias)[local]
            matrices.append(matrix * factor.to(matrix))
            biases.append(bias * factor.to(bias))
        return torch.stack(matrices), torch.stack(biases)


def floats(weights: Tensor) -> Tensor:
    """Weights as float32, or as they are where they are finer."""
    return weights.float() if weights.element_size() < 4 else weights
