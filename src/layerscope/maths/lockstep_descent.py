"""Many logistic regressions are brought to their optima in lock-step, by L-BFGS on the whole data.

Every problem (an entry of the batch, a task) has its own memory, step length and end. The two loops of L-BFGS run
on inner products alone, which are kept from step to step; the vectors of the memory are touched twice a step.

Source: Nocedal & Wright 2006, algorithm 7.4 and section 3.1; Chen et al. 2014, "Large-scale L-BFGS using MapReduce",
for the loops on inner products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from layerscope.maths.logistic_problems import LogisticProblems

if TYPE_CHECKING:
    from torch import Tensor

_MEMORY = 8
_ENOUGH, _SHORTEST = 1e-4, 1e-10  # Armijo's share of the promised decrease, and the shortest step tried


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
        problem = LogisticProblems(states, centre, scale, labels, classes, l2)
        at, converged, steps = _descend(problem, problem.begin(start), tolerance, most_steps)
        return problem.weights(at).mT, converged, steps


class _Memory:
    """The last steps and changes of the gradient, and all their inner products with one another.

    Inner products are a few numbers for each problem: they are kept in numpy, on the CPU.
    """

    def __init__(self, problem: LogisticProblems, like: Tensor) -> None:
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
    problem: LogisticProblems, place: Tensor, tolerance: float, most_steps: int
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


def _line_search(
    problem: LogisticProblems, at: _Point, move: Tensor, slope: Tensor, resting: Tensor
) -> _Found:
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
