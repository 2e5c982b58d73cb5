"""Samples of a causal trace by prompt and class of token, and their averages over prompts: all, and by category."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import Over, cell_by_cell, named, side_by_side, text_coordinate
from layerscope.experiments.causal_trace.conclude.readouts import (
    ROWS,
    ends_of,
    owners_of,
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


def over_used(result: xr.Dataset, settings: Settings, rows: np.ndarray | None = None) -> Over:
    """The prompts that are used, or some of them."""
    here = used_prompts(result) if rows is None else rows
    return Over(result[["prompt"]].isel(prompt=np.flatnonzero(here)), settings, rows="prompt")


def indirect_by_class(
    result: xr.Dataset, stage: xr.Dataset, which: str, dimension: str, settings: Settings
) -> xr.DataArray:
    """Change of the metric by an exchange, by prompt and class of token [prompt token_class_name ...]."""
    values, nothing, _ = _beside_ends(result, stage, which, dimension, settings)
    sign = 1.0 if settings.direction == "restore" else -1.0
    return _by_class(result, stage, sign * (values - nothing.astype(np.float64)), dimension)


def recovered_by_class(
    result: xr.Dataset, stage: xr.Dataset, which: str, dimension: str, settings: Settings
) -> xr.DataArray:
    """Recovery by prompt and class of token [prompt token_class_name ...]."""
    values, nothing, everything = _beside_ends(result, stage, which, dimension, settings)
    scaled = cell_by_cell(
        lambda patched, low, high: recovery(patched, noised=low, clean=high), values, nothing, everything
    )
    used = xr.DataArray(used_prompts(result)[owners_of(result, stage, dimension)], dims=dimension)
    return _by_class(result, stage, scaled.where(used), dimension)


def _beside_ends(
    result: xr.Dataset, stage: xr.Dataset, which: str, dimension: str, settings: Settings
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """The metric of each token's exchanges, draws averaged, and where they would do nothing, and everything."""
    values = read_out(stage, which, settings).mean("sample").transpose(dimension, ...)
    owners = owners_of(result, stage, dimension)
    nothing, everything = (xr.DataArray(end[owners], dims=dimension) for end in scale_of(result, settings))
    return values, nothing, everything


def _by_class(result: xr.Dataset, stage: xr.Dataset, values: xr.DataArray, dimension: str) -> xr.DataArray:
    """Mean over the tokens of each class within each prompt; NaN where it has none."""
    owners, classes = owners_of(result, stage, dimension), stage[f"{dimension}_class"].to_numpy()
    out = np.full((result.sizes["prompt"], len(TOKEN_CLASSES), *values.shape[1:]), np.nan)
    for prompt, number in np.ndindex(*out.shape[:2]):
        here = (owners == prompt) & (classes == TOKEN_CLASSES[number])
        if here.any():
            out[prompt, number] = values.to_numpy()[here].mean(axis=0)
    names = text_coordinate(TOKEN_CLASSES, "token_class_name", "class of token")
    coords = {dim: values[dim].variable for dim in values.dims[1:]} | {"token_class_name": names}
    return xr.DataArray(out, coords, ("prompt", "token_class_name", *values.dims[1:]))


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
    values: xr.DataArray,
    name: str,
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
        settings: how intervals are made.
        together: dimensions from which claims pick the best: ends that hold for all their places are added.
    """
    used = used_prompts(result)

    def mean(rows: np.ndarray, called: str, said: str, joint: tuple[str, ...]) -> xr.Dataset:
        some = named(values.isel(prompt=np.flatnonzero(rows)), called, said)
        return over_used(result, settings, rows).mean(some, together=joint)

    by_category = {
        restored(str(one)): mean(
            used & (result.prompt_category.values == one), f"category_{name}", f"{what}, by category", ()
        )
        for one in result.category.values
    }
    laid = side_by_side(by_category, "category", "category of prompts").drop_vars("category")
    return xr.merge([mean(used, name, what, together), laid])
