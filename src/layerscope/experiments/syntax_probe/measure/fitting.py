"""Fitting syntax probes: one depth of one model, all tasks at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.evidence import named, number_coordinate, samples, text_coordinate
from layerscope.evidence.probing import scored
from layerscope.experiments.syntax_probe.items import FitItem
from layerscope.experiments.syntax_probe.items.design import Design
from layerscope.experiments.syntax_probe.settings import Settings
from layerscope.maths.probes import LinearProbes, doubling_ends, fit_logistic, online_code_length

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel

_FIRST_BLOCK = 128
"""Words that an online code sends before any probe has learnt."""
_NOT_ASKED = -1


def fit_depth(model: LayeredModel, item: FitItem, design: Design, settings: Settings) -> xr.Dataset:
    """Fit all tasks (and controls) at one depth; every tested word's loss and answer is kept.

    Returns:
        Along fit (this one), task, and tested word: `loss`, `predicted`, `control_right`; along fit and task:
        `code_bits` and `converged`. What was not asked for is NaN or −1.
    """
    truncated, controls = settings.read == "truncated", settings.controls and item.main
    states = _states(model, item, design, truncated=truncated)
    learnt, tested = design.learnt(item.draw), design.tested
    labels = design.labels
    classes = [len(task.classes) for task in design.tasks]
    # Controls are tasks of their own beside the others: every product with the states serves both.
    asked, kinds = labels, classes
    if controls:
        asked, kinds = np.concatenate([labels, design.control(settings.seed, item.draw)]), classes * 2
    probes = fit_logistic(
        states[:, : len(learnt)],
        asked[:, learnt],
        kinds,
        l2=settings.l2,
        standardise=not truncated,
        tolerance=settings.tolerance,
    )
    loss, predicted = _answers(probes, states[:, len(learnt) :], asked[:, tested])
    count = len(design.tasks)
    control = None
    if controls:
        truth = asked[count:, tested]
        control = np.where(truth >= 0, (predicted[count:] == truth).astype(np.int8), _NOT_ASKED)
    bits = None
    if settings.code and item.main:
        bits = _code(states[:, : len(learnt)], labels[:, learnt], classes, settings)
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


def _code(states: Tensor, labels: np.ndarray, classes: list[int], settings: Settings) -> np.ndarray:
    ends = doubling_ends(states.shape[1], first=_FIRST_BLOCK)
    bits = online_code_length(
        states,
        labels,
        classes,
        ends=ends,
        l2=settings.l2,
        standardise=settings.read != "truncated",
        tolerance=settings.tolerance,
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

    def one(values: Any, name: str, over: str, what: str, units: str = "1") -> xr.DataArray:
        return named(np.asarray(values)[None], name, what, units, dims=("fit", *over.split()))

    right = nothing if control is None else control.astype(np.int8)
    code = np.full(tasks, np.nan) if bits is None else bits
    return samples(
        one(loss.astype(np.float32), "loss", "task tested", "−log p of the true label", "nat"),
        one(predicted.astype(np.int16), "predicted", "task tested", "number of the likeliest label"),
        one(right, "control_right", "task tested", "whether the control's label is the likeliest"),
        one(code, "code_bits", "task", "online code", "bit"),
        one(converged, "converged", "task", "whether the fit reached its tolerance"),
        fit=number_coordinate([item.depth], "fit", "a fitted set of probes, by its depth"),
        fit_draw=number_coordinate([item.draw], "fit", "draw of training documents"),
        fit_weights=text_coordinate([item.weights], "fit", "model"),
        fit_piece=text_coordinate([item.piece], "fit", "token of the word that is read"),
        tested=number_coordinate(range(words), "tested", "a word that is tested on"),
        task=number_coordinate(range(tasks), "task", "number of the task"),
    )
