"""Samples of a causal trace by prompt and class of token, and their averages over prompts: all, and by category."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments import _tracing
from layerscope.experiments._summaries import interval_variables, stacked
from layerscope.experiments._trace_measures import TOKEN_CLASSES
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.recovery import recovery, recovery_by_draw
from layerscope.maths.sample_size import mean_half_width
from layerscope.results.schema import quantity


def mean_over_prompts(settings: Any) -> Any:
    return partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)


def used_prompts(result: xr.Dataset) -> np.ndarray:
    return np.asarray(result.left_out_because.values == "")


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
    result: xr.Dataset, stage: xr.Dataset, which: str, dimension: str, settings: Any
) -> np.ndarray:
    """Change of the metric by an exchange, by prompt and class of token."""
    values = _tracing.read_out(stage, which, settings).mean("sample").transpose(dimension, ...).values
    base, _ = _tracing.scale_of(result, settings)
    owners = stage[f"{dimension}_prompt"].values
    start = dict(zip(result.prompt.values.tolist(), base.tolist(), strict=True))
    nothing = np.array([start[owner] for owner in owners.tolist()])
    sign = 1.0 if settings.direction == "restore" else -1.0
    change = sign * (values - nothing.reshape(-1, *[1] * (values.ndim - 1)))
    return by_class(change, owners, stage[f"{dimension}_class"].values, result.prompt.values.tolist())


def recovered_by_class(
    result: xr.Dataset, stage: xr.Dataset, which: str, dimension: str, settings: Any
) -> np.ndarray:
    """Recovery by prompt and class of token [prompt class ...]."""
    values = _tracing.read_out(stage, which, settings).mean("sample").transpose(dimension, ...).values
    nothing, everything = _tracing.scale_of(result, settings)
    index = {name: place for place, name in enumerate(result.prompt.values.tolist())}
    owners = stage[f"{dimension}_prompt"].values
    rows = np.array([index[owner] for owner in owners.tolist()])
    shape = (-1, *[1] * (values.ndim - 1))
    scaled = recovery(values, noised=nothing[rows].reshape(shape), clean=everything[rows].reshape(shape))
    scaled[~used_prompts(result)[rows]] = np.nan
    return by_class(scaled, owners, stage[f"{dimension}_class"].values, result.prompt.values.tolist())


def over_draws(result: xr.Dataset, settings: Any) -> dict[str, xr.Variable]:
    """Draws of each prompt, and how far its rows' recoveries, averaged over depth, would move with other draws."""
    noised = _tracing.read_out(result, "noised", settings).transpose("prompt", "sample").values
    clean, _ = _tracing.ends_of(result, settings)
    restored = _tracing.read_out(result, "restored", settings).transpose("token", "depth", "sample").values
    subject = _tracing.read_out(result, "subject", settings).transpose("prompt", "depth", "sample").values
    draws = np.isfinite(noised).sum(axis=1)
    widths = np.full((len(noised), len(_tracing.ROWS)), np.nan)
    for index, (_, last, others) in _tracing.rows_of_tokens(result):
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


def _half_width(patched: np.ndarray, nothing: np.ndarray, everything: np.ndarray, settings: Any) -> float:
    """Of one row [draw depth], with draws that are not there left out."""
    there = np.isfinite(patched).all(axis=1) & np.isfinite(nothing) & np.isfinite(everything)
    if not there.any():
        return np.nan
    parts = recovery_by_draw(patched[there], noised=nothing[there, None], clean=everything[there, None])
    return float(mean_half_width(parts.mean(axis=1), together=settings.together, level=settings.level))


def averages(
    result: xr.Dataset, values: np.ndarray, name: str, dims: str, what: str, settings: Any
) -> dict[str, xr.Variable]:
    """The mean over all prompts that are used, and by category: `name` and `category_name`, with intervals."""
    used, mean = used_prompts(result), mean_over_prompts(settings)
    of_category = [used & (result.prompt_category.values == name) for name in result.category.values]
    by_category = stacked([mean(values[chosen]) for chosen in of_category])
    return interval_variables(name, mean(values[used]), dims, what) | interval_variables(
        f"category_{name}", by_category, f"category {dims}", f"{what}, by category"
    )
