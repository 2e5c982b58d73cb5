"""Probes for the index of a unit: their fitting, what is saved of them, and the ways that states are moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.evidence.coordinates import number_coordinate
from layerscope.experiments.word_position_probe.items.prompts import Laid
from layerscope.experiments.word_position_probe.items.tasks import Cases
from layerscope.experiments.word_position_probe.settings import Settings
from layerscope.maths.class_contrasts import contrast_within_cells
from layerscope.maths.probes import fit_logistic
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


def case_states(
    model: LayeredModel,
    prompts: Sequence[Laid],
    depths: Sequence[int],
    cases: Mapping[str, Cases],
    tokens_per_pass: int,
) -> dict[str, np.ndarray]:
    """States [depth case width] of cases of each name, through the cache; nothing else is held in memory."""
    cache = runs.StateCache(model, tokens_per_pass=tokens_per_pass)
    starts = np.cumsum([0, *(len(prompt.ids) for prompt in prompts)])
    rows = [starts[those.rows] + those.positions for those in cases.values()]
    states = cache.picked([prompt.ids for prompt in prompts], depths, np.concatenate(rows)).numpy()
    ends = np.cumsum([len(those) for those in rows])
    return dict(zip(cases, np.split(states, ends[:-1], axis=1), strict=True))


@dataclass(frozen=True, eq=False)
class IndexProbe:
    """A linear map from a state to the index of its unit.

    Attributes:
        slopes: [width column]; one column for each index, or two (no, yes) where each has a probe of its own.
        bias: [column].
        apart: whether each index has a probe of its own.
        converged: whether the fit reached its tolerance.
    """

    slopes: np.ndarray
    bias: np.ndarray
    apart: bool
    converged: bool

    @property
    def n_classes(self) -> int:
        """How many indices it tells apart."""
        return len(self.bias) // (2 if self.apart else 1)

    def probabilities(self, states: np.ndarray) -> np.ndarray:
        """[case index], rows that sum to 1; probes of one index each are normalised over the indices."""
        logits = states.astype(np.float64) @ self.slopes + self.bias
        if self.apart:
            logits = -np.logaddexp(0, logits[:, 0::2] - logits[:, 1::2])  # log p(yes) of each
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def fitted(
    states: np.ndarray,
    labels: np.ndarray,
    settings: Settings,
    device: Any = "cpu",
    *,
    tolerance: float = 1e-4,
) -> list[IndexProbe]:
    """Probes for the index of the unit, one for each entry of the batch (depths, places), fitted together.

    Args:
        states: [batch case width].
        labels: [case], 0 .. the number of indices − 1; the same for the whole batch.
        settings: `penalty`, `scheme` and `scale` of the experiment.
        device: where to fit.
        tolerance: of `fit_logistic`.
    """
    import torch

    apart = settings.scheme == "one-vs-rest"
    n_classes = int(labels.max()) + 1
    centred = states - states.mean(axis=1, keepdims=True)
    factor = np.ones(len(states), dtype=states.dtype)
    if settings.scale == "whole":
        spread = np.sqrt((centred.astype(np.float64) ** 2).mean(axis=(1, 2)))
        factor = np.where(spread > 0, spread, 1.0).astype(states.dtype)
    tasks = np.stack([labels == index for index in range(n_classes)]) if apart else labels[None]
    probes = fit_logistic(
        torch.from_numpy(centred / factor[:, None, None]).to(device),
        torch.from_numpy(tasks.astype(np.int64)),
        [2] * n_classes if apart else [n_classes],
        # A yes-or-no probe is fitted with a column for each answer, a = −b at the optimum, and its slope is
        # a − b: ½‖slope‖² is ‖a‖² + ‖b‖², twice what two columns are charged.
        l2=settings.penalty * (2 if apart else 1),
        standardise=settings.scale == "entries",
        tolerance=tolerance,
    )
    weights, bias, centre, scale, converged = (
        part.cpu().double().numpy()
        for part in (probes.weights, probes.bias, probes.centre, probes.scale, probes.converged)
    )
    found = []
    for place, mean in enumerate(states.mean(axis=1)):
        slopes = weights[place] / scale[place][:, None] / factor[place]
        shift = bias[place] - (mean.astype(np.float64) + centre[place] * factor[place]) @ slopes
        found.append(IndexProbe(slopes, shift, apart, bool(converged[place].all())))
    return found


def probe_variables(probes: Sequence[IndexProbe], depths: Sequence[int]) -> xr.Dataset:
    """Probes of some depths, as a Dataset that `probes_of` reads back."""
    slopes = np.stack([probe.slopes for probe in probes])
    return xr.Dataset(
        {
            "slopes": quantity(slopes, "depth entry column", "slopes of the probe"),
            "bias": quantity(np.stack([probe.bias for probe in probes]), "depth column", "bias of the probe"),
            "converged": quantity(
                np.array([probe.converged for probe in probes]),
                "depth",
                "whether the fit reached its tolerance",
            ),
        },
        coords={
            "depth": number_coordinate(depths, "depth", "depth [layers applied]"),
            "entry": number_coordinate(range(slopes.shape[1]), "entry", "entry of the state"),
            "column": number_coordinate(range(slopes.shape[2]), "column", "column of the probe"),
        },
        attrs={"apart": int(probes[0].apart)},
    )


def probes_of(saved: xr.Dataset) -> dict[int, IndexProbe]:
    """By depth, the probes that `probe_variables` saved: all depths, or those that a plan has tried."""
    return {
        int(depth): IndexProbe(
            slopes=saved.slopes.values[row],
            bias=saved.bias.values[row],
            apart=bool(saved.attrs["apart"]),
            converged=bool(saved.converged.values[row]),
        )
        for row, depth in enumerate(saved.depth.values)
    }


def decoded(states: np.ndarray, probes: Mapping[int, IndexProbe], depths: Sequence[int]) -> np.ndarray:
    """Probabilities [case depth class] that each depth's probe gives to [depth case width] states.

    NaN at a depth without a probe, which only a plan meets.
    """
    found = {
        depth: probes[depth].probabilities(there)
        for depth, there in zip(depths, states, strict=True)
        if depth in probes
    }
    classes = next(iter(probes.values())).n_classes
    unknown = np.full((states.shape[1], classes), np.nan)
    return np.stack([found.get(depth, unknown) for depth in depths], axis=1)


def directions(
    states: np.ndarray, cases: Cases, index: int, rng: np.random.Generator, draws: int
) -> dict[str, np.ndarray]:
    """Where states lie whose index is one more or one less, and differences that have nothing to do with it.

    Returns:
        "later" and "earlier" [width], by class means within cells of equal position; "control"
        [draw width]: differences of two states of equal index at equal position.
    """
    kept = {"labels": cases.labels, "cells": cases.offsets}
    found = {
        name: contrast_within_cells(states, first=index, second=other, **kept)
        for name, other in (("later", index + 1), ("earlier", index - 1))
    }
    kinds = cases.labels * 10_000 + cases.offsets
    pairs = list(_pairs_alike(kinds, rng, draws))
    found["control"] = np.stack([states[a] - states[b] for a, b in pairs])
    return found


def _pairs_alike(kinds: np.ndarray, rng: np.random.Generator, draws: int) -> Iterator[tuple[int, int]]:
    shared = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    shared = [rows for rows in shared if len(rows) > 1]
    weights = np.array([len(rows) for rows in shared], dtype=float)
    for kind in rng.choice(len(shared), size=draws, p=weights / weights.sum()):
        a, b = rng.choice(shared[kind], size=2, replace=False)
        yield int(a), int(b)


def direction_variables(vectors: Mapping[str, np.ndarray]) -> xr.Dataset:
    """What `directions` gives, as a Dataset."""
    return xr.Dataset(
        {
            "later": quantity(vectors["later"], "entry", "way to the next index"),
            "earlier": quantity(vectors["earlier"], "entry", "way to the index before"),
            "control": quantity(vectors["control"], "draw entry", "differences of states of equal index"),
        },
        coords={
            "entry": number_coordinate(range(len(vectors["later"])), "entry", "entry of the state"),
            "draw": number_coordinate(range(len(vectors["control"])), "draw", "draw"),
        },
    )
