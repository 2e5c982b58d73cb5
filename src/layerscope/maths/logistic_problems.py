"""Many multinomial logistic regressions on the same inputs, brought to their optima in lock-step.

The optimiser is L-BFGS on the whole data; every problem (an entry of the batch, a task) has its own memory,
step length and end. What makes it quick:

- Inputs are turned once into the directions in which they do not correlate, and weights are measured in units
  of 1 / √curvature there, the curvature being fixed: π(1 − π) · variance + penalty. In these coordinates the
  problem is round at the start, and the inverse of the curvature costs nothing. With fewer rows than entries
  only as many directions are kept as there are rows: in the others an optimum is 0.
- Logits are linear in the weights, so a line search needs no further product with the inputs.
- The two loops of L-BFGS run on inner products alone, which are kept from step to step; the vectors of the
  memory are touched twice a step.
- Rows are the last axis of logits, so that everything about classes is whole rows of numbers.

- A problem ends where its duality gap says that it is near its optimum. A small gradient does not: in round
  coordinates it falls long before the last directions, those of little variance, are followed to their end.

Source: Nocedal & Wright 2006, algorithm 7.4 and section 3.1; Böhning 1992 for the fixed curvature; Chen et al.
2014, "Large-scale L-BFGS using MapReduce", for the loops on inner products; Boyd & Vandenberghe 2004, 5.5.1, and
Yu et al. 2011, "Dual coordinate descent methods for logistic regression", for the gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from torch import Tensor

_MEMORY = 8
_ENOUGH, _SHORTEST = 1e-4, 1e-10  # Armijo's share of the promised decrease, and the shortest step tried
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


def minimise(
    states: Tensor,
    centre: Tensor,
    scale: Tensor,
    labels: Tensor,
    classes: Sequence[int],
    *,
    l2: float,
    tolerance: float,
    most_steps: int,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor, int]:
    """The optima of Σ −log p(label | input) + l2/2 ‖W‖² for every entry of the batch and every task.

    Args:
        states: [batch row width]; the inputs are the standardised states. They are made in blocks of rows, so
            that they never lie in memory beside the turned ones.
        centre, scale: [batch width], the mean over the rows and what states are divided by.
        labels: [task row], −1 where a row has no part in a task.
        classes: classes of each task.
        l2, tolerance, most_steps: see `layerscope.maths.probes.fit_logistic`.
        start: weights and biases to start from [batch width+1 column].

    Returns:
        Weights with the bias as last row [batch width+1 column], whether each problem reached the tolerance
        [batch task], and the steps taken.
    """
    import torch

    with torch.no_grad():
        values, turn = _directions(states, centre, scale)
        inputs = _turned(states, centre, scale, turn)
        problem = _Problem(inputs, values, turn, labels, tuple(classes), l2)
        at, converged, steps = _descend(problem, problem.begin(start), tolerance, most_steps)
        return problem.weights(at).mT, converged, steps


class _Problem:
    """Mean losses of all problems and their gradients, and what all steps of the fit share.

    Places [batch column direction] are weights and bias (the last direction) in the round coordinates.
    """

    def __init__(
        self,
        inputs: Tensor,
        values: Tensor,
        turn: Tensor,
        labels: Tensor,
        classes: tuple[int, ...],
        l2: float,
    ) -> None:
        import torch

        self.inputs, self.turn = inputs, turn
        self.labels, self.columns, self.n_tasks = labels, columns_of(classes), len(classes)
        self.known = labels >= 0
        self.counts = self.known.sum(1).to(inputs.dtype)
        tasks = torch.arange(len(classes))
        self.task_of = torch.repeat_interleave(tasks, torch.tensor(classes)).to(inputs.device)
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

    def _curvature(self, classes: tuple[int, ...]) -> Tensor:
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


# -- descent ------------------------------------------------------------------------------------------


class _Memory:
    """The last steps and changes of the gradient, and all their inner products with one another.

    Inner products are a few numbers for each problem: they are kept in numpy, on the CPU.
    """

    def __init__(self, problem: _Problem, like: Tensor) -> None:
        size = 2 * _MEMORY
        self.problem, self.held, self.next = problem, 0, 0
        self.vectors = like.new_zeros(size, *like.shape)  # steps, then changes
        self.products = np.zeros((size, size, len(like), problem.n_tasks))

    def add(self, step: Tensor, change: Tensor) -> None:
        """Take up a step and what it changed of the gradient; the oldest is forgotten."""
        place = self.next
        for row, vector in ((place, step), (_MEMORY + place, change)):
            self.vectors[row] = vector
            with_all = self._inner(vector)
            self.products[row], self.products[:, row] = with_all, with_all
        self.next, self.held = (place + 1) % _MEMORY, min(self.held + 1, _MEMORY)

    def _inner(self, vector: Tensor) -> Float[np.ndarray, "held batch task"]:
        return np.asarray(self.problem.inner(self.vectors, vector).cpu().numpy())

    def direction(self, gradient: Tensor) -> Tensor:
        """The gradient times the inverse Hessian that the memory knows of; pairs that tell nothing are passed over."""
        import torch

        if not self.held:
            return gradient.clone()
        order = [(self.next - 1 - age) % _MEMORY for age in range(self.held)]  # the latest first
        size, shares = self._two_loops(order, self._inner(gradient))
        shares[_MEMORY:] *= size
        found = gradient * self.problem.spread(torch.from_numpy(size))
        spread = self.problem.spread(torch.from_numpy(shares))
        for pair in order:
            for row in (pair, _MEMORY + pair):
                found.addcmul_(self.vectors[row], spread[row])
        return found

    def _two_loops(
        self, order: Sequence[int], with_gradient: Float[np.ndarray, "held batch task"]
    ) -> tuple[Float[np.ndarray, "batch task"], Float[np.ndarray, "held batch task"]]:
        """The direction as the gradient times a size, and shares of the vectors; of changes, before that size."""
        shares = np.zeros_like(with_gradient)
        told = {pair: self.products[pair, _MEMORY + pair] for pair in order}
        kept = {}
        for pair in order:
            now = with_gradient[pair] + (shares * self.products[pair]).sum(0)
            kept[pair] = _ratio(now, told[pair])
            shares[_MEMORY + pair] -= kept[pair]
        latest = order[0]
        size = _ratio(told[latest], self.products[_MEMORY + latest, _MEMORY + latest])
        size = np.where(told[latest] > 0, size, 1.0)
        for pair in reversed(order):
            change = _MEMORY + pair
            of_changes = with_gradient[change] + (shares[_MEMORY:] * self.products[change, _MEMORY:]).sum(0)
            now = size * of_changes + (shares[:_MEMORY] * self.products[change, :_MEMORY]).sum(0)
            shares[pair] = np.where(told[pair] > 0, kept[pair] - _ratio(now, told[pair]), 0.0)
        return size, shares


def _ratio(
    a: Float[np.ndarray, "batch task"], b: Float[np.ndarray, "batch task"]
) -> Float[np.ndarray, "batch task"]:
    """a / b, 0 where b is not positive."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


@dataclass(frozen=True, eq=False)
class _Point:
    """Where all problems are: places, logits and losses."""

    place: Tensor
    logits: Tensor
    loss: Tensor


@dataclass(frozen=True, eq=False)
class _Found(_Point):
    """Where a line search ended: how far each problem went, and what the gradient there is made from."""

    length: Tensor
    parts: Tensor
    totals: Tensor


def _descend(
    problem: _Problem, place: Tensor, tolerance: float, most_steps: int
) -> tuple[Tensor, Tensor, int]:
    """L-BFGS on all problems at once; the place, whether each converged, and the steps taken."""
    import torch

    logits = problem.logits(place)
    loss, parts, totals = problem.loss(logits, place)
    gradient = problem.gradient(parts, totals, place)
    memory = _Memory(problem, place)
    stuck = torch.zeros_like(loss, dtype=torch.bool)
    for step in range(most_steps):
        solved = problem.solved(gradient, loss, tolerance)
        resting = solved | stuck
        if bool(resting.all()):
            return place, solved, step
        move = -memory.direction(gradient)
        slope = problem.inner(move, gradient)
        if bool((slope >= 0).any()):  # rounding, close to the optimum: step down the plain way
            move = torch.where(problem.spread(slope >= 0).bool(), -gradient, move)
            slope = problem.inner(move, gradient)
        if bool(resting.any()):
            move = move * problem.spread(~resting)
        found = _line_search(problem, _Point(place, logits, loss), move, slope, resting)
        after = problem.gradient(found.parts, found.totals, found.place)
        memory.add(found.place - place, after - gradient)
        stuck = stuck | ((found.length == 0) & ~solved)
        place, logits, loss, gradient = found.place, found.logits, found.loss, after
    return place, problem.solved(gradient, loss, tolerance), most_steps


def _line_search(problem: _Problem, at: _Point, move: Tensor, slope: Tensor, resting: Tensor) -> _Found:
    """Each problem goes the first of 1, 1/2, 1/4, … of a move that lowers its loss enough; 0 where none does."""
    import torch

    moved_logits = problem.logits(move)
    length = torch.where(resting, 0.0, 1.0).to(at.loss.dtype)
    slack = (1e-12 if move.dtype == torch.float64 else 2e-7) * at.loss.abs()
    while True:
        share = problem.spread(length)
        place = torch.addcmul(at.place, move, share)
        logits = torch.addcmul(at.logits, moved_logits, share)
        loss, parts, totals = problem.loss(logits, place)
        too_far = (loss > at.loss + _ENOUGH * length * slope + slack) & (length > 0)
        if not bool(too_far.any()):
            return _Found(place, logits, loss, length, parts, totals)
        length = torch.where(too_far, length / 2, length)
        length = torch.where(length < _SHORTEST, 0.0, length)
