"""Samples of a causal trace by prompt and class of token, and their averages over prompts: all, and by category."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import Over, named, side_by_side
from layerscope.experiments.causal_trace.conclude.readouts import (
    ROWS,
    ends_of,
    read_out,
    rows_of_tokens,
    scale_of,
    used_prompts,
)
from layerscope.experiments.causal_trace.measure.tokens import TOKEN_CLASSES
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.recovery import recovery, recovery_by_draw
from layerscope.maths.sample_size import mean_half_width
from layerscope.results.escaping import restored
from layerscope.results.schema import quantity


def mean_over_prompts(settings: Settings) -> Any:
    """The bootstrap mean with this run's seed, level and resamples."""
    return partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)


def by_class(
    values: np.ndarray, owners: np.ndarray, classes: np.ndarray, prompts: Sequence[str]
) -> np.ndarray:
    """Mean over the tokens of each class within each prompt [prompt class ...]; NaN where it has none."""
    out = np.full((len(prompts), len(TOKEN_CLASSES), *values.shape[1:]), np.nan)
    for index, prompt in enumerate(prompts):
        own = owners == prompt
        for number, name in enumerate(TOKEN_CLASSES):
            here = own & (classes == name)
            if here.any():
                out[index, number] = values[here].mean(axis=0)
    return out


def indirect_by_class(
    result: xr.Dataset, stage: xr.Dataset, which: str, dimension: str, settings: Settings
) -> np.ndarray:
    """Change of the metric by an exchange, by prompt and class of token."""
    values = read_out(stage, which, settings).mean("sample").transpose(dimension, ...).values
    base, _ = scale_of(result, settings)
    owners = stage[f"{dimension}_prompt"].values
    start = dict(zip(result.prompt.values.tolist(), base.tolist(), strict=True))
    nothing = np.array([start[owner] for owner in owners.tolist()])
    sign = 1.0 if settings.direction == "restore" else -1.0
    change = sign * (values - nothing.reshape(-1, *[1] * (values.ndim - 1)))
    return by_class(change, owners, stage[f"{dimension}_class"].values, result.prompt.values.tolist())


def recovered_by_class(
    result: xr.Dataset, stage: xr.Dataset, which: str, dimension: str, settings: Settings
) -> np.ndarray:
    """Recovery by prompt and class of token [prompt class ...]."""
    values = read_out(stage, which, settings).mean("sample").transpose(dimension, ...).values
    nothing, everything = scale_of(result, settings)
    index = {name: place for place, name in enumerate(result.prompt.values.tolist())}
    owners = stage[f"{dimension}_prompt"].values
    rows = np.array([index[owner] for owner in owners.tolist()])
    shape = (-1, *[1] * (values.ndim - 1))
    scaled = recovery(values, noised=nothing[rows].reshape(shape), clean=everything[rows].reshape(shape))
    scaled[~used_prompts(result)[rows]] = np.nan
    return by_class(scaled, owners, stage[f"{dimension}_class"].values, result.prompt.values.tolist())


def over_draws(result: xr.Dataset, settings: Settings) -> dict[str, xr.Variable]:
    """Draws of each prompt, and how far its rows' recoveries, averaged over depth, would move with other draws."""
    noised = read_out(result, "noised", settings).transpose("prompt", "sample").values
    clean, _ = ends_of(result, settings)
    restored = read_out(result, "restored", settings).transpose("token", "depth", "sample").values
    subject = read_out(result, "subject", settings).transpose("prompt", "depth", "sample").values
    draws = np.isfinite(noised).sum(axis=1)
    widths = np.full((len(noised), len(ROWS)), np.nan)
    for index, (_, last, others) in rows_of_tokens(result):
        rows = [subject[index], restored[last], restored[others].mean(axis=0) if others.size else None]
        ends = (noised[index], np.broadcast_to(clean[index], noised[index].shape))
        nothing, everything = ends if settings.direction == "restore" else ends[::-1]
        for row, patched in enumerate(rows):
            if patched is not None:
                widths[index, row] = _half_width(patched.T, nothing, everything, settings)
    what = "half-width of the interval over draws of the row's recovery, averaged over depth"
    return {
        "draws": quantity(draws, "prompt", "noise draws, or partners"),
        "draws_half_width": quantity(widths, "prompt row", what),
    }


def _half_width(
    patched: np.ndarray, nothing: np.ndarray, everything: np.ndarray, settings: Settings
) -> float:
    """Of one row [draw depth], with draws that are not there left out."""
    there = np.isfinite(patched).all(axis=1) & np.isfinite(nothing) & np.isfinite(everything)
    if not there.any():
        return np.nan
    parts = recovery_by_draw(patched[there], noised=nothing[there, None], clean=everything[there, None])
    return float(mean_half_width(parts.mean(axis=1), together=settings.together, level=settings.level))


def averages(
    result: xr.Dataset,
    values: np.ndarray,
    name: str,
    dims: tuple[str, ...],
    what: str,
    settings: Settings,
    *,
    together: tuple[str, ...] = (),
) -> xr.Dataset:
    """The mean over all prompts that are used, and by category: `name` and `category_name`, with intervals.

    Args:
        result: with the prompts.
        values: [prompt ...].
        name, what: of the variable, for a program and for a person.
        dims: of the values behind the prompts.
        settings: how intervals are made.
        together: dimensions from which claims pick the best: ends that hold for all their places are added.
    """
    used = used_prompts(result)

    def mean(rows: np.ndarray, called: str, said: str, joint: tuple[str, ...]) -> xr.Dataset:
        here = result[["prompt"]].isel(prompt=np.flatnonzero(rows))
        return Over(here, settings, rows="prompt").mean(
            named(values[rows], called, said, dims=("prompt", *dims)), together=joint
        )

    by_category = {
        restored(str(one)): mean(
            used & (result.prompt_category.values == one), f"category_{name}", f"{what}, by category", ()
        )
        for one in result.category.values
    }
    laid = side_by_side(by_category, "category", "category of prompts").drop_vars("category")
    return xr.merge([mean(used, name, what, together), laid])
