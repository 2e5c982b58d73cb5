"""Fitting syntax probes: one depth of one model, all tasks at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import WorkItem
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.evidence.probing import Weights
from layerscope.experiments._syntax_rows import Design, scored
from layerscope.maths.probes import LinearProbes, doubling_ends, fit_logistic, online_code_length
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel

Piece = Literal["last", "first"]

_FIRST_BLOCK = 128
_NOT_ASKED = -1


class FitItem(WorkItem):
    """All probes at one depth of one model, on one draw of training documents."""

    weights: Weights
    piece: Piece
    draw: int
    depth: int


@dataclass(frozen=True)
class Fitting:
    """How probes are fitted; see the settings of the same names."""

    l2: float
    tolerance: float
    truncated: bool
    controls: bool
    code: bool
    seed: int


def fit(model: LayeredModel, item: FitItem, design: Design, how: Fitting) -> xr.Dataset:
    """Fit all tasks (and controls) at one depth; every tested word's loss and answer is kept.

    Returns:
        Along fit (this one), task, and tested word: `loss`, `predicted`, `control_right`; along fit and task:
        `code_bits` and `converged`. What was not asked for is NaN or −1.
    """
    states = _states(model, item, design, truncated=how.truncated)
    learnt, tested = design.learnt(item.draw), design.tested
    labels = design.labels
    classes = [len(task.classes) for task in design.tasks]
    # Controls are tasks of their own beside the others: every product with the states serves both.
    asked, kinds = labels, classes
    if how.controls:
        asked, kinds = np.concatenate([labels, design.control(how.seed, item.draw)]), classes * 2
    probes = fit_logistic(
        states[:, : len(learnt)],
        asked[:, learnt],
        kinds,
        l2=how.l2,
        standardise=not how.truncated,
        tolerance=how.tolerance,
    )
    loss, predicted = _answers(probes, states[:, len(learnt) :], asked[:, tested])
    count = len(design.tasks)
    control = None
    if how.controls:
        truth = asked[count:, tested]
        control = np.where(truth >= 0, (predicted[count:] == truth).astype(np.int8), _NOT_ASKED)
    bits = _code(states[:, : len(learnt)], labels[:, learnt], classes, how) if how.code else None
    return _part(item, loss[:count], predicted[:count], control, bits, probes)


def _states(model: LayeredModel, item: FitItem, design: Design, *, truncated: bool) -> Tensor:
    """States of the words learnt from, then of those tested on [1 row width], in float32 or finer."""
    words = np.concatenate([design.learnt(item.draw), design.tested])
    rows = design.rows[0 if item.piece == "first" else 1, words]
    found = runs.StateCache(model).picked(design.tokens, [item.depth], rows)[0]
    if truncated:
        found = _normed(model, found)
    return found.to(model.device)[None]


def _normed(model: LayeredModel, states: Tensor) -> Tensor:
    """What a model cut off here would hand to its head: the state after the final norm."""
    import torch

    model.need("unembed")
    with torch.no_grad():
        on_device = states.to(model.device, next(model.module.parameters()).dtype)
        for module in model.structure.after[:-1]:
            on_device = module(on_device)
    return on_device.to("cpu", states.dtype)


def _answers(probes: LinearProbes, states: Tensor, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    losses, predicted = [], []
    for task, logs in enumerate(probes.log_probabilities(states)):
        probabilities = logs[0].exp().double().cpu().numpy()
        losses.append(scored(probabilities, labels[task])[0])
        predicted.append(probabilities.argmax(axis=1))
    return np.array(losses), np.array(predicted)


def _code(states: Tensor, labels: np.ndarray, classes: list[int], how: Fitting) -> np.ndarray:
    ends = doubling_ends(states.shape[1], first=_FIRST_BLOCK)
    bits = online_code_length(
        states, labels, classes, ends=ends, l2=how.l2, standardise=not how.truncated, tolerance=how.tolerance
    )
    return np.asarray(bits[0].numpy())


def _part(
    item: FitItem,
    loss: np.ndarray,
    predicted: np.ndarray,
    control: np.ndarray | None,
    bits: np.ndarray | None,
    probes: LinearProbes,
) -> xr.Dataset:
    tasks, words = loss.shape
    nothing = np.full((tasks, words), _NOT_ASKED, dtype=np.int8)
    converged = probes.converged[0, :tasks].cpu().numpy()

    def one(values: Any, dims: str, what: str, units: str = "1") -> xr.Variable:
        return quantity(np.asarray(values)[None], f"fit {dims}", what, units)

    return xr.Dataset(
        {
            "loss": one(loss.astype(np.float32), "task tested", "−log p of the true label", "nat"),
            "predicted": one(predicted.astype(np.int16), "task tested", "number of the likeliest label"),
            "control_right": one(
                nothing if control is None else control.astype(np.int8),
                "task tested",
                "whether the control's label is the likeliest",
            ),
            "code_bits": one(np.full(tasks, np.nan) if bits is None else bits, "task", "online code", "bit"),
            "converged": one(converged, "task", "whether the fit reached its tolerance"),
        },
        coords={
            "fit": number_coordinate([item.depth], "fit", "a fitted set of probes, by its depth"),
            "fit_draw": number_coordinate([item.draw], "fit", "draw of training documents"),
            "fit_weights": text_coordinate([item.weights], "fit", "model"),
            "fit_piece": text_coordinate([item.piece], "fit", "token of the word that is read"),
            "tested": number_coordinate(range(words), "tested", "a word that is tested on"),
            "task": number_coordinate(range(tasks), "task", "number of the task"),
        },
    )
