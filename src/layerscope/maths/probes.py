"""Linear probes: what can be read off states by one linear map, for many tasks and depths at once.

`fit_logistic` fits multinomial logistic regressions with an L2 penalty, each to its optimum, which is
unique: so there is no learning rate, no epoch and no seed, and a result can be computed again. Problems
that read the same states (tasks) share every product with them, and depths may be stacked on a batch axis.

Torch is imported when something is fitted, not before: saved results are read without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int

from layerscope.maths.arrays import Array
from layerscope.maths.lockstep_descent import minimise
from layerscope.maths.logistic_problems import columns_of, loss_of, standardised

if TYPE_CHECKING:
    from torch import Tensor

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
        return standardised(states, self.centre, self.scale) @ self.weights + self.bias[:, None]

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
        for columns, rows in zip(columns_of(self.classes), self.rows, strict=True):
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
    most_steps: int = 1000,
    start: LinearProbes | None = None,
) -> LinearProbes:
    """Multinomial logistic regressions, one for each entry of the batch and each task.

    Each minimises Σ −log p(label | state) + l2/2 ‖W‖² over its rows; biases are free. That is scikit-learn's
    LogisticRegression(C=1/l2) on the same (standardised) states.

    Args:
        states: a torch tensor of float32 or float64 on any device.
        labels: of each row in each task, 0 … classes − 1; −1 where the row has no part in the task.
        classes: number of classes of each task; all of them have a probability, also those without a row.
        l2: weight of the penalty, in units of one row's log loss; it does not grow with the rows. Above 0.
        standardise: bring every entry of the state to mean 0 and SD 1 over the rows first (an entry that
            does not vary stays 0). The penalty then weighs all entries alike, massive ones too.
        tolerance: a problem is solved where its objective is known (by the duality gap) to lie above the optimum
            by no more than this share of itself, or of one nat over all rows where that is more.
        most_steps: steps after which it is left where it is, not converged.
        start: probes of the same shape to start from (of fewer rows, say); the optimum is the same.

    Returns:
        The probes, in the dtype and on the device of the states.

    Raises:
        ValueError: a task without a row, labels beyond its classes, or a penalty that is not above 0.

    How: `layerscope.maths.logistic_problems`.
    """
    import torch

    labels = torch.as_tensor(labels, device=states.device).long()
    _check(labels, classes, rows=states.shape[1])
    if l2 <= 0:
        raise ValueError(f"expected a penalty above 0, without which there may be no optimum, found {l2}")
    centre, scale = _centre_and_scale(states, standardise)
    weights, converged, steps = minimise(
        states,
        centre,
        scale,
        labels,
        classes,
        l2=l2,
        tolerance=tolerance,
        most_steps=most_steps,
        start=None if start is None else _moved(start, centre, scale),
    )
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
    inputs = standardised(states, centre, scale).double()
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
    most_steps: int = 1000,
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
    bits = (_sent(labels[:, : ends[0]]) * uniform).repeat(len(states), 1)
    probes: LinearProbes | None = None
    for before, end in pairwise(ends):
        shown = (labels[:, :before] >= 0).any(1).tolist()
        told = [task for task, any_row in enumerate(shown) if any_row]
        untold = [task for task, any_row in enumerate(shown) if not any_row]
        bits[:, untold] += (_sent(labels[:, before:end]) * uniform)[untold]
        if not told:
            continue
        few = tuple(classes[task] for task in told)
        probes = fit_logistic(
            states[:, :before],
            labels[told, :before],
            few,
            l2=l2,
            standardise=standardise,
            tolerance=tolerance,
            most_steps=most_steps,
            start=probes if probes is not None and probes.classes == few else None,
        )
        bits[:, told] += _block_bits(probes, states[:, before:end], labels[told, before:end])
    return bits


def _sent(labels: Tensor) -> Tensor:
    """How many labels of each task there are."""
    return (labels >= 0).sum(1).cpu().double()


def _block_bits(probes: LinearProbes, states: Tensor, labels: Tensor) -> Tensor:
    """Bits [batch task] that a block of labels costs, told by the probes of the rows before."""
    import torch

    logs = zip(probes.log_probabilities(states), labels, strict=True)
    costs = [loss_of(of_task, block).sum(1).cpu().double() for of_task, block in logs]
    return torch.stack(costs, dim=1) / torch.tensor(2.0).double().log()


def doubling_ends(rows: int, *, first: int) -> list[int]:
    """Ends of blocks that double: first, 2 first, 4 first, … and the number of rows."""
    ends = [min(first, rows)]
    while ends[-1] < rows:
        ends.append(min(2 * ends[-1], rows))
    return ends


# -- states -------------------------------------------------------------------------------------------


def _centre_and_scale(states: Tensor, standardise: bool) -> tuple[Tensor, Tensor]:
    import torch

    centre = states.mean(1)  # changes the free bias only, and makes it independent of the slopes
    if not standardise:
        return centre, torch.ones_like(centre)
    spread = states.var(1, correction=0).sqrt()
    flat = spread <= _FLAT * spread.amax(-1, keepdim=True)
    return centre, spread.masked_fill(flat, float("inf"))


def _moved(start: LinearProbes, centre: Tensor, scale: Tensor) -> Tensor:
    """Weights and biases that say the same on states standardised in another way."""
    import torch

    slope = start.weights / start.scale[..., None]  # on raw states
    bias = start.bias + ((centre - start.centre)[:, None] @ slope)[:, 0]
    flat = torch.isinf(scale)[..., None]
    weights = (slope * scale[..., None]).masked_fill(flat, 0.0)
    return torch.cat([weights, bias[:, None]], dim=1)


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
