"""Linear probes: what can be read off states by one linear map, for many tasks and depths at once.

`fit_logistic` fits multinomial logistic regressions with an L2 penalty, each to its optimum, which is
unique: so there is no learning rate, no epoch and no seed, and a result can be computed again. Problems
that read the same states (tasks) share every product with them, and depths may be stacked on a batch axis.

The optimiser is L-BFGS on the whole data, run in lock-step: every problem has its own memory, step length
and end. Two things make it quick. Steps start from the inverse of a fixed curvature, πₖ(1 − πₖ)·XᵀX/n + l2/n,
by one eigendecomposition for each depth, which takes the correlations of states out of the problem. And
logits are linear in the weights, so a line search needs no further product with the states.

Torch is imported when something is fitted, not before: saved results are read without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int

from layerscope.maths.arrays import Array

if TYPE_CHECKING:
    from torch import Tensor

_MEMORY = 8
_ENOUGH, _SHORTEST = 1e-4, 1e-10  # Armijo's share of the promised decrease, and the shortest step tried
_FLAT = 1e-6


@dataclass(frozen=True, eq=False)
class LinearProbes:
    """Fitted maps from states to classes or numbers, for every entry of the batch and every task.

    Attributes:
        weights: from standardised states [batch width column]; a task's classes are neighbouring columns.
        bias: [batch column].
        centre, scale: what states are standardised by [batch width].
        classes: columns of each task.
        rows: rows that each task was learnt from.
        converged: whether each problem reached the tolerance [batch task].
        steps: steps until the last one did, or until they were cut off.
    """

    weights: Any
    bias: Any
    centre: Any
    scale: Any
    classes: tuple[int, ...]
    rows: tuple[int, ...]
    converged: Any
    steps: int = 0

    def outputs(self, states: Float[Array, "batch row width"]) -> Float[Array, "batch row column"]:
        """Logits (or predicted numbers) of all tasks, side by side."""
        return _standardised(states, self.centre, self.scale) @ self.weights + self.bias[:, None]

    def log_probabilities(
        self, states: Float[Array, "batch row width"], *, mixed: bool = True
    ) -> Iterator[Float[Array, "batch row classes"]]:
        """For each task in turn, the log probability of each class, in nats.

        Args:
            states: what to read.
            mixed: add one row's worth of the uniform distribution, p = (n·p̂ + 1/K) / (n + 1), n being the
                rows learnt from. A class that had no row would otherwise be impossible, and a single test
                row of it cost any number of nats; so no row costs more than log K(n + 1).
        """
        outputs = self.outputs(states)
        for columns, rows in zip(_columns(self.classes), self.rows, strict=True):
            logs = outputs[..., columns].log_softmax(-1)
            count = columns.stop - columns.start
            yield (((logs.exp() * rows) + 1 / count) / (rows + 1)).log() if mixed else logs


def fit_logistic(
    states: Float[Array, "batch row width"],
    labels: Int[Array, "task row"],
    classes: Sequence[int],
    *,
    l2: float = 1.0,
    standardise: bool = True,
    tolerance: float = 1e-4,
    most_steps: int = 200,
    start: LinearProbes | None = None,
) -> LinearProbes:
    """Multinomial logistic regressions, one for each entry of the batch and each task.

    Each minimises Σ −log p(label | state) + l2/2 ‖W‖² over its rows; biases are free. That is scikit-learn's
    LogisticRegression(C=1/l2) on the same (standardised) states.

    Args:
        states: a torch tensor of float32 or float64 on any device.
        labels: of each row in each task, 0 … classes − 1; −1 where the row has no part in the task.
        classes: number of classes of each task; all of them have a probability, also those without a row.
        l2: weight of the penalty, in units of one row's log loss; it does not grow with the rows.
        standardise: bring every entry of the state to mean 0 and SD 1 over the rows first (an entry that
            does not vary stays 0). The penalty then weighs all entries alike, massive ones too.
        tolerance: largest entry of the gradient of the mean loss at which a problem is solved.
        most_steps: steps after which it is left where it is, not converged.
        start: probes of the same shape to start from (of fewer rows, say); the optimum is the same.

    Returns:
        The probes, in the dtype and on the device of the states.

    Raises:
        ValueError: a task without a row, or labels beyond its classes.

    Source: Böhning 1992 for the curvature; Nocedal & Wright 2006, algorithm 7.4 and section 3.1.
    """
    import torch

    labels = torch.as_tensor(labels, device=states.device).long()
    _check(labels, classes, rows=states.shape[1])
    centre, scale = _centre_and_scale(states, standardise)
    inputs = _standardised(states, centre, scale)
    problem = _Problem(inputs, labels, tuple(classes), l2)
    with torch.no_grad():
        at = problem.zeros() if start is None else _moved(start, centre, scale)
        weights, converged, steps = _minimise(problem, at, tolerance, most_steps)
    rows = tuple((labels >= 0).sum(1).tolist())
    return LinearProbes(
        weights[:, :-1], weights[:, -1], centre, scale, tuple(classes), rows, converged, steps
    )


def fit_ridge(
    states: Float[Array, "batch row width"],
    targets: Float[Array, "row target"],
    *,
    l2: float = 1.0,
    standardise: bool = True,
) -> LinearProbes:
    """Linear regressions with an L2 penalty, in closed form: minimises ‖y − Xw − b‖² + l2 ‖w‖².

    Args:
        states: a torch tensor of float32 or float64; see `fit_logistic` for `standardise`.
        targets: numbers to be read off, one column each.
        l2: weight of the penalty; scikit-learn's Ridge(alpha=l2).

    Source: Hoerl & Kennard 1970.
    """
    import torch

    centre, scale = _centre_and_scale(states, standardise)
    inputs = _standardised(states, centre, scale).double()
    means = inputs.mean(1, keepdim=True)
    inputs = inputs - means
    targets = torch.as_tensor(targets, device=states.device, dtype=torch.float64)
    middle = targets.mean(0)
    width = inputs.shape[-1]
    gram = inputs.mT @ inputs + l2 * torch.eye(width, dtype=torch.float64, device=states.device)
    weights = torch.linalg.solve(gram, inputs.mT @ (targets - middle))
    bias = middle - (means @ weights)[:, 0]
    done = torch.ones(len(states), targets.shape[1], dtype=torch.bool)
    classes = (1,) * targets.shape[1]
    rows = (states.shape[1],) * targets.shape[1]
    return LinearProbes(weights.to(states.dtype), bias.to(states.dtype), centre, scale, classes, rows, done)


def online_code_length(
    states: Float[Array, "batch row width"],
    labels: Int[Array, "task row"],
    classes: Sequence[int],
    *,
    ends: Sequence[int],
    l2: float = 1.0,
    standardise: bool = True,
    tolerance: float = 1e-4,
    most_steps: int = 200,
) -> Float[Array, "batch task"]:
    """Bits that it takes to send the labels to someone who has the states: the online (prequential) code.

    The first block is sent at log₂K bits a label. Every later block is sent with a probe fitted to all
    blocks before it: L = n₁ log₂K − Σ log₂ p(y_block | probe of the rows before). A representation that
    shows a label plainly gives a short code, because few rows teach the probe; accuracy on much data
    cannot tell that from one that hides it. Probabilities are mixed as in `log_probabilities`, so that a
    class that no row before has shown can be sent.

    Args:
        states: rows in the order in which they are sent; whole documents should stand together.
        labels: see `fit_logistic`; −1 costs nothing.
        classes: number of classes K of each task.
        ends: rows up to which each block goes, growing; the last is the number of rows.
        l2, standardise, tolerance, most_steps: of every fit, see `fit_logistic`.

    Returns:
        Code lengths in bits. With nothing learnt they are near n log₂K, n the labels that were sent.

    Source: Voita & Titov 2020, "Information-Theoretic Probing with Minimum Description Length", 2.2.
    """
    import torch

    labels = torch.as_tensor(labels, device=states.device).long()
    uniform = torch.tensor([float(k) for k in classes], dtype=torch.float64).log2()
    first = (labels[:, : ends[0]] >= 0).sum(1).cpu().double()
    bits = (first * uniform).repeat(len(states), 1)
    probes: LinearProbes | None = None
    for before, end in pairwise(ends):
        told = [task for task in range(len(classes)) if bool((labels[task, :before] >= 0).any())]
        block = labels[:, before:end]
        for task in set(range(len(classes))) - set(told):
            bits[:, task] += float((block[task] >= 0).sum()) * uniform[task]
        if not told:
            continue
        few = [classes[task] for task in told]
        same = probes is not None and probes.classes == tuple(few)
        probes = fit_logistic(
            states[:, :before],
            labels[told, :before],
            few,
            l2=l2,
            standardise=standardise,
            tolerance=tolerance,
            most_steps=most_steps,
            start=probes if same else None,
        )
        for task, logs in zip(told, probes.log_probabilities(states[:, before:end]), strict=True):
            bits[:, task] += (
                _loss_of(logs, block[task]).sum(1).cpu().double() / torch.tensor(2.0).double().log()
            )
    return bits


def doubling_ends(rows: int, *, first: int) -> list[int]:
    """Ends of blocks that double: first, 2 first, 4 first, … and the number of rows."""
    ends = [min(first, rows)]
    while ends[-1] < rows:
        ends.append(min(2 * ends[-1], rows))
    return ends


def _loss_of(logs: Tensor, labels: Tensor) -> Tensor:
    """−log p of each row's label [batch row]; 0 where it has none."""
    picked = logs.gather(-1, labels.clamp(min=0).expand(len(logs), -1)[..., None])[..., 0]
    return -picked * (labels >= 0)


# -- states -------------------------------------------------------------------------------------------


def _centre_and_scale(states: Tensor, standardise: bool) -> tuple[Tensor, Tensor]:
    import torch

    centre = states.mean(1)  # changes the free bias only, and makes it independent of the slopes
    if not standardise:
        return centre, torch.ones_like(centre)
    spread = (states - centre[:, None]).pow(2).mean(1).sqrt()
    flat = spread <= _FLAT * spread.amax(-1, keepdim=True)
    return centre, spread.masked_fill(flat, float("inf"))


def _standardised(states: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    return (states - centre[:, None]) / scale[:, None]


def _moved(start: LinearProbes, centre: Tensor, scale: Tensor) -> Tensor:
    """Weights and biases that say the same on states standardised in another way."""
    import torch

    slope = start.weights / start.scale[..., None]  # on raw states
    bias = start.bias + ((centre - start.centre)[:, None] @ slope)[:, 0]
    flat = torch.isinf(scale)[..., None]
    weights = (slope * scale[..., None]).masked_fill(flat, 0.0)
    return torch.cat([weights, bias[:, None]], dim=1)


def _columns(classes: Sequence[int]) -> list[slice]:
    starts = [sum(classes[:task]) for task in range(len(classes))]
    return [slice(start, start + count) for start, count in zip(starts, classes, strict=True)]


def _check(labels: Tensor, classes: Sequence[int], rows: int) -> None:
    if tuple(labels.shape) != (len(classes), rows):
        raise ValueError(
            f"expected labels of {len(classes)} tasks and {rows} rows, found {tuple(labels.shape)}"
        )
    for task, count in enumerate(classes):
        if not bool((labels[task] >= 0).any()):
            raise ValueError(f"task {task} has no row")
        if int(labels[task].max()) >= count:
            raise ValueError(f"task {task} has a label {int(labels[task].max())} beyond its {count} classes")


# -- the problem --------------------------------------------------------------------------------------


class _Problem:
    """Mean losses of all problems and their gradients, and what all steps of the fit share."""

    def __init__(self, inputs: Tensor, labels: Tensor, classes: tuple[int, ...], l2: float) -> None:
        import torch

        self.inputs, self.labels, self.columns = inputs, labels, _columns(classes)
        counts = (labels >= 0).sum(1)
        self.counts = counts.to(inputs.dtype)
        self.task_of = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor(classes)).to(
            inputs.device
        )
        self.penalty = (l2 / self.counts)[self.task_of]  # per column, on the mean loss
        self.n_tasks = len(classes)
        self.curvature = self._curvature(classes)
        gram = (inputs.mT @ inputs).double() / inputs.shape[1]
        values, vectors = torch.linalg.eigh(gram)
        self.values, self.vectors = values.clamp(min=0).to(inputs.dtype), vectors.to(inputs.dtype)

    def zeros(self) -> Tensor:
        batch, _, width = self.inputs.shape
        return self.inputs.new_zeros(batch, width + 1, len(self.task_of))

    def _curvature(self, classes: tuple[int, ...]) -> Tensor:
        """π(1 − π) of each class: the curvature where a probe says no more than how frequent it is."""
        import torch

        shares = [
            torch.bincount(row[row >= 0], minlength=count).to(self.inputs.dtype) / n
            for row, count, n in zip(self.labels, classes, self.counts, strict=True)
        ]
        share = torch.cat(shares)
        return (share * (1 - share)).maximum(1 / (2 * self.counts[self.task_of]))

    def logits(self, weights: Tensor) -> Tensor:
        return self.inputs @ weights[:, :-1] + weights[:, -1:]

    def loss(self, logits: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mean loss and penalty of each problem [batch task], and the log probabilities of each task."""
        import torch

        logs = [logits[..., columns].log_softmax(-1) for columns in self.columns]
        losses = [
            _loss_of(told, self.labels[task]).double().sum(1) / self.counts[task]
            for task, told in enumerate(logs)
        ]
        squares = (weights[:, :-1].pow(2).sum(1).double() * self.penalty).to(torch.float64)
        return torch.stack(losses, dim=1) + self.by_task(squares) / 2, logs

    def gradient(self, logs: list[Tensor], weights: Tensor) -> Tensor:
        """Of each problem's mean loss and penalty [batch width+1 column]; uses the log probabilities up."""
        import torch

        for task, told in enumerate(logs):
            labels = self.labels[task]
            minus = told.new_full((len(told), len(labels), 1), -1.0)
            told.exp_().scatter_add_(-1, labels.clamp(min=0).expand(len(told), -1)[..., None], minus)
            told.mul_(((labels >= 0) / self.counts[task])[:, None])
        residuals = torch.cat(logs, dim=-1)
        slopes = self.inputs.mT @ residuals + weights[:, :-1] * self.penalty
        return torch.cat([slopes, residuals.sum(1, keepdim=True)], dim=1)

    def unbent(self, gradient: Tensor) -> Tensor:
        """The gradient divided by the fixed curvature."""
        import torch

        turned = self.vectors.mT @ gradient[:, :-1]
        bent = self.values[..., None] * self.curvature + self.penalty
        floor = bent.amax(1, keepdim=True) * _FLAT
        slopes = self.vectors @ (turned / bent.maximum(floor))
        return torch.cat([slopes, gradient[:, -1:] / self.curvature], dim=1)

    def by_task(self, columns: Tensor) -> Tensor:
        """Sums over each task's columns [batch task]."""
        sums = columns.new_zeros(len(columns), self.n_tasks)
        return sums.index_add_(1, self.task_of, columns)

    def inner(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner product of each problem's weights [batch task], in float64."""
        return self.by_task((a * b).sum(1).double())

    def spread(self, numbers: Tensor, like: Tensor) -> Tensor:
        """A number of each problem, for all of its columns [batch 1 column]."""
        return numbers[:, self.task_of][:, None].to(like.dtype)


def _minimise(
    problem: _Problem, weights: Tensor, tolerance: float, most_steps: int
) -> tuple[Tensor, Tensor, int]:
    """L-BFGS on all problems at once; the weights, whether each converged, and the steps taken."""
    import torch

    logits = problem.logits(weights)
    loss, logs = problem.loss(logits, weights)
    gradient = problem.gradient(logs, weights)
    memory: list[tuple[Tensor, Tensor, Tensor]] = []
    stuck = torch.zeros_like(loss, dtype=torch.bool)
    for step in range(most_steps):
        solved = _largest(problem, gradient) <= tolerance
        if bool((solved | stuck).all()):
            return weights, solved, step
        move = -_two_loops(problem, gradient, memory)
        slope = problem.inner(move, gradient)
        uphill = problem.spread(slope >= 0, move).bool()
        if bool(uphill.any()):  # rounding, close to the optimum: step down the plain way
            move = torch.where(uphill, -problem.unbent(gradient), move)
            slope = problem.inner(move, gradient)
        resting = solved | stuck
        move = move * problem.spread(~resting, move)
        found = _line_search(problem, _Point(weights, logits, loss), move, slope, resting)
        shift = move * problem.spread(found.length, move)
        after = problem.gradient(found.logs, found.weights)
        change = after - gradient
        memory = [*memory[1 - _MEMORY :], (shift, change, problem.inner(shift, change))]
        stuck = stuck | ((found.length == 0) & ~solved)
        weights, logits, loss, gradient = found.weights, found.logits, found.loss, after
    return weights, _largest(problem, gradient) <= tolerance, most_steps


def _largest(problem: _Problem, gradient: Tensor) -> Tensor:
    import torch

    columns = gradient.abs().amax(1)
    return torch.stack([columns[:, c].amax(1) for c in problem.columns], dim=1)


def _two_loops(problem: _Problem, gradient: Tensor, memory: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The gradient times the inverse Hessian that the memory knows of; pairs that tell nothing are passed over."""
    import torch

    direction, shares = gradient, []
    for shift, change, product in reversed(memory):
        share = torch.where(product > 0, problem.inner(shift, direction) / product, 0.0).nan_to_num()
        shares.append(share)
        direction = direction - change * problem.spread(share, change)
    direction = problem.unbent(direction)
    if memory:
        shift, change, product = memory[-1]
        size = product / problem.inner(change, problem.unbent(change))
        size = torch.where(product > 0, size, 1.0).nan_to_num(1.0)
        direction = direction * problem.spread(size, direction)
    for (shift, change, product), share in zip(memory, reversed(shares), strict=True):
        back = torch.where(product > 0, problem.inner(change, direction) / product, 0.0).nan_to_num()
        keep = torch.where(product > 0, share - back, 0.0)
        direction = direction + shift * problem.spread(keep, shift)
    return direction


@dataclass(frozen=True, eq=False)
class _Point:
    """Where all problems are: weights, logits and losses."""

    weights: Tensor
    logits: Tensor
    loss: Tensor


@dataclass(frozen=True, eq=False)
class _Found(_Point):
    """Where a line search ended: how far each problem went, and what the gradient there is made from."""

    length: Tensor
    logs: list[Tensor]


def _line_search(problem: _Problem, at: _Point, move: Tensor, slope: Tensor, resting: Tensor) -> _Found:
    """Each problem goes the first of 1, 1/2, 1/4, … of a move that lowers its loss enough; 0 where none does."""
    import torch

    moved_logits = problem.inputs @ move[:, :-1] + move[:, -1:]
    length = torch.where(resting, 0.0, 1.0).to(at.loss.dtype)
    slack = (1e-12 if move.dtype == torch.float64 else 2e-7) * at.loss.abs()
    while True:
        share = problem.spread(length, move)
        weights, logits = at.weights + move * share, at.logits + moved_logits * share
        loss, logs = problem.loss(logits, weights)
        too_far = (loss > at.loss + _ENOUGH * length * slope + slack) & (length > 0)
        if not bool(too_far.any()):
            return _Found(weights, logits, loss, length, logs)
        length = torch.where(too_far, length / 2, length)
        length = torch.where(length < _SHORTEST, 0.0, length)
