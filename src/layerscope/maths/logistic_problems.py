"""Many multinomial logistic regressions on the same inputs: their losses and gradients, in round coordinates.

- Inputs are turned once into the directions in which they do not correlate, and weights are measured in units
  of 1 / √curvature there, the curvature being fixed: π(1 − π) · variance + penalty. In these coordinates the
  problem is round at the start, and the inverse of the curvature costs nothing. With fewer rows than entries
  only as many directions are kept as there are rows: in the others an optimum is 0.
- Logits are linear in the weights, so a line search needs no further product with the inputs.
- Rows are the last axis of logits, so that everything about classes is whole rows of numbers.
- A problem ends where its duality gap says that it is near its optimum. A small gradient does not: in round
  coordinates it falls long before the last directions, those of little variance, are followed to their end.

Source: Böhning 1992 for the fixed curvature; Boyd & Vandenberghe 2004, 5.5.1, and Yu et al. 2011, "Dual coordinate
descent methods for logistic regression", for the gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_FLAT = 1e-6
_ROWS_AT_ONCE = 16_384


def columns_of(classes: Sequence[int]) -> list[slice]:
    """The columns of each task, side by side."""
    starts = [sum(classes[:task]) for task in range(len(classes))]
    return [slice(start, start + count) for start, count in zip(starts, classes, strict=True)]


def loss_of(logs: Tensor, labels: Tensor) -> Tensor:
    """−log p of each row's label [batch row], from [batch row class]; 0 where it has none (−1)."""
    picked = logs.gather(-1, labels.clamp(min=0).expand(len(logs), -1)[..., None])[..., 0]
    return -picked * (labels >= 0)


def standardised(states: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """States [batch row width] less a centre, over a scale [batch width]."""
    return (states - centre[:, None]) / scale[:, None]


class LogisticProblems:
    """Mean losses of all problems and their gradients, and what all steps of the fit share.

    Places [batch column direction] are weights and bias (the last direction) in the round coordinates.

    Args:
        states, centre, scale, labels, classes, l2: as of `layerscope.maths.lockstep_descent.minimise`.
    """

    def __init__(
        self, states: Tensor, centre: Tensor, scale: Tensor, labels: Tensor, classes: Sequence[int], l2: float
    ) -> None:
        import torch

        values, turn = _directions(states, centre, scale)
        inputs = _turned(states, centre, scale, turn)
        self.inputs, self.turn = inputs, turn
        self.labels, self.columns, self.n_tasks = labels, columns_of(classes), len(classes)
        self.known = labels >= 0
        self.counts = self.known.sum(1).to(inputs.dtype)
        tasks = torch.arange(len(classes))
        self.task_of = torch.repeat_interleave(tasks, torch.tensor(list(classes))).to(inputs.device)
        starts = torch.tensor([columns.start for columns in self.columns], device=inputs.device)
        self.true_column = labels.clamp(min=0) + starts[:, None]  # [task row]
        self.share = self.known / self.counts[:, None]  # of a row in the mean loss
        penalty = (l2 / self.counts)[self.task_of]
        curvature = self._curvature(classes)
        bent = curvature[:, None] * values[:, None] + penalty[:, None]
        bent = bent.maximum(bent.amax(2, keepdim=True) * _FLAT)
        bias = curvature[None, :, None].expand(len(inputs), -1, 1)
        self.unit = torch.cat([bent, bias], dim=2).rsqrt()
        self.pull = self.unit.square() * penalty[:, None]
        self.pull[..., -1] = 0.0

    def _curvature(self, classes: Sequence[int]) -> Tensor:
        """π(1 − π) of each class: the curvature where a probe says no more than how frequent it is."""
        import torch

        shares = [
            torch.bincount(row[row >= 0], minlength=count).to(self.counts.dtype) / n
            for row, count, n in zip(self.labels, classes, self.counts, strict=True)
        ]
        share = torch.cat(shares)
        return (share * (1 - share)).maximum(1 / (2 * self.counts[self.task_of]))

    def begin(self, start: Tensor | None) -> Tensor:
        """The place of some weights [batch width+1 column]; by default of none at all."""
        import torch

        if start is None:
            return self.inputs.new_zeros(len(self.inputs), len(self.task_of), self.inputs.shape[-1])
        turned = start[:, :-1].mT @ self.turn
        return torch.cat([turned, start[:, -1:].mT], dim=2) / self.unit

    def weights(self, place: Tensor) -> Tensor:
        """Weights and biases [batch column width+1]."""
        import torch

        weights = place * self.unit
        return torch.cat([weights[..., :-1] @ self.turn.mT, weights[..., -1:]], dim=2)

    def logits(self, place: Tensor) -> Tensor:
        """[batch column row]."""
        return (place * self.unit) @ self.inputs.mT

    def loss(self, logits: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss and penalty of each problem [batch task], and of each class and row its unscaled probability.

        The last is the sum over classes of these [batch task row].
        """
        import torch

        parts, sums, tops = torch.empty_like(logits), [], []
        for columns in self.columns:
            there, part = logits[:, columns], parts[:, columns]
            top = there.amax(1, keepdim=True)
            torch.sub(there, top, out=part)
            part.exp_()
            sums.append(part.sum(1))
            tops.append(top[:, 0])
        totals = torch.stack(sums, dim=1)
        true = logits.gather(1, self.true_column.expand(len(logits), -1, -1))
        losses = (torch.stack(tops, dim=1) - true + totals.log()) * self.share
        penalties = (place.square() * self.pull).sum(2).double()
        return losses.sum(2, dtype=torch.float64) + self.by_task(penalties) / 2, parts, totals

    def gradient(self, parts: Tensor, totals: Tensor, place: Tensor) -> Tensor:
        """Of each problem's mean loss and penalty, at a place; uses the unscaled probabilities up."""
        weight = self.share / totals
        for task, columns in enumerate(self.columns):
            parts[:, columns].mul_(weight[:, task, None])
        minus = -self.share.expand(len(parts), -1, -1)
        parts.scatter_add_(1, self.true_column.expand(len(parts), -1, -1), minus)
        return (parts @ self.inputs) * self.unit + place * self.pull

    def gap(self, gradient: Tensor) -> Tensor:
        """How far mean loss and penalty [batch task] lie above their optima at most, from the gradient there.

        This is the duality gap, ‖gradient by W‖² / 2 l2, with the probabilities less the labels as dual variables.
        They are allowed only if the gradient by the bias is 0; what is left of that is taken by the fixed curvature.
        """
        squares = gradient.square()
        by_weight = (squares[..., :-1] / self.pull[..., :-1]).sum(2)
        return self.by_task((by_weight + squares[..., -1]).double()) / 2

    def solved(self, gradient: Tensor, loss: Tensor, tolerance: float) -> Tensor:
        """Whether each problem's gap is within a share of its loss, or of one nat over all rows if that is more.

        Where all rows are of one class the optimum is 0, infinitely far away: hence the nat.
        """
        return self.gap(gradient) <= tolerance * loss.maximum(1 / self.counts.double())

    def by_task(self, of_column: Tensor) -> Tensor:
        """Sums over each task's columns [… task]."""
        sums = of_column.new_zeros(*of_column.shape[:-1], self.n_tasks)
        return sums.index_add_(-1, self.task_of, of_column)

    def inner(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner product of each problem's places [… batch task], in float64."""
        return self.by_task((a * b).sum(-1).double())

    def spread(self, numbers: Tensor) -> Tensor:
        """A number of each problem, for all of its columns [… batch column 1]."""
        numbers = numbers.to(self.inputs.device, self.inputs.dtype)
        return numbers[..., self.task_of][..., None]


def _directions(states: Tensor, centre: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Variances along the directions in which inputs do not correlate, and these [batch width direction]."""
    import torch

    batch, rows, width = states.shape
    gram = states.new_zeros(batch, width, width, dtype=torch.float64)
    for some in _blocks(rows):
        inputs = standardised(states[:, some], centre, scale)
        gram += inputs.mT @ inputs
    values, vectors = torch.linalg.eigh(gram / rows)
    kept = slice(max(0, width - rows), None)
    return values[:, kept].clamp(min=0).to(states.dtype), vectors[..., kept].to(states.dtype)


def _turned(states: Tensor, centre: Tensor, scale: Tensor, turn: Tensor) -> Tensor:
    """Inputs along the directions, with a last column of ones."""
    batch, rows, _ = states.shape
    turned = states.new_ones(batch, rows, turn.shape[-1] + 1)
    for some in _blocks(rows):
        turned[:, some, :-1] = standardised(states[:, some], centre, scale) @ turn
    return turned


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, rows, _ROWS_AT_ONCE))
