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
from layerscope.maths.recovery import recovery


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
