"""What attention, MLPs and single heads restore, and what goes through them, from saved samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments._coordinates import text_coordinate
from layerscope.experiments._summaries import interval_variables, stacked
from layerscope.experiments._trace_averages import (
    averages,
    indirect_by_class,
    mean_over_prompts,
    recovered_by_class,
    used_prompts,
)
from layerscope.experiments._trace_measures import OUTPUTS, TOKEN_CLASSES
from layerscope.maths.bootstrap import Interval, bootstrap_statistic
from layerscope.maths.correlation import rank_correlation
from layerscope.maths.max_statistic import compare_pairs
from layerscope.results.schema import quantity

LAST_SUBJECT, LAST = TOKEN_CLASSES[3], TOKEN_CLASSES[6]


def outputs(result: xr.Dataset, stage: xr.Dataset, settings: Any) -> xr.Dataset:
    recovered = recovered_by_class(result, stage, "output", "output_token", settings)
    indirect = indirect_by_class(result, stage, "output", "output_token", settings)
    peaks = np.full((len(recovered), len(OUTPUTS)), np.nan)
    for site, place in enumerate((LAST, LAST_SUBJECT)):  # attention at the end, MLPs at the subject
        curves = recovered[:, TOKEN_CLASSES.index(place), site]
        known = np.isfinite(curves).all(axis=1)
        peaks[known, site] = curves[known].argmax(axis=1)
    dims = "token_class_name site layer"
    variables = averages(
        result,
        recovered,
        "output_recovery",
        dims,
        "mean recovery with outputs over a window exchanged",
        settings,
    )
    variables |= interval_variables(
        "output_effect",
        mean_over_prompts(settings)(indirect[used_prompts(result)]),
        dims,
        "mean change of the metric with outputs over a window exchanged (AIE)",
    )
    variables["window_peak"] = quantity(
        peaks,
        "prompt site",
        "block of the highest recovery: attention at the last token, MLPs at the subject's",
        "block",
    )
    variables["window"] = quantity(
        settings.window_of(stage.sizes["layer"]), "", "blocks in a window", "block"
    )
    agreement = _agreement(result, peaks, settings)
    return xr.merge([stage, xr.Dataset(variables), agreement], join="outer")


def _agreement(result: xr.Dataset, peaks: np.ndarray, settings: Any) -> xr.Dataset:
    """Do prompts that cross late have late peaks? Rank correlations over prompts."""
    used = used_prompts(result)
    columns = {
        "transition and attention's window peak": (result.transition_layer.values, peaks[:, 0]),
        "transition and the MLPs' window peak": (result.transition_layer.values, peaks[:, 1]),
        "attention's and the MLPs' window peaks": (peaks[:, 0], peaks[:, 1]),
    }
    intervals = []
    for a, b in columns.values():
        both = np.stack([a[used], b[used]], axis=1)
        both = both[np.isfinite(both).all(axis=1)]
        if len(both) < 4:
            nan = np.array(np.nan)
            intervals.append(Interval(nan, nan, nan, np.array(len(both))))
            continue
        intervals.append(
            bootstrap_statistic(
                both,
                lambda rows: rank_correlation(rows[:, 0], rows[:, 1]),
                seed=settings.seed,
                level=settings.level,
                resamples=min(settings.resamples, 500),
            )
        )
    return xr.Dataset(
        interval_variables("agreement", stacked(intervals), "measures", "rank correlation over prompts"),
        coords={"measures": text_coordinate(list(columns), "measures", "two measures of a prompt")},
    )


def severed(result: xr.Dataset, stage: xr.Dataset, settings: Any) -> xr.Dataset:
    recovered = recovered_by_class(result, stage, "severed", "severed_token", settings)
    whole = recovered_by_class(result, result, "restored", "token", settings)[
        ..., :-1
    ]  # no block after the last
    lost = whole[:, :, None] - recovered
    named = {
        "severed_recovery": (recovered, "mean recovery with one state exchanged and others severed"),
        "severed_loss": (lost, "recovery that goes through what is severed"),
    }
    variables: dict[str, xr.Variable] = {}
    for name, (values, what) in named.items():
        variables |= averages(result, values, name, "token_class_name site layer", what, settings)
    return xr.merge([stage, xr.Dataset(variables)], join="outer")


def heads(result: xr.Dataset, stage: xr.Dataset, settings: Any) -> xr.Dataset:
    """Recovery by single heads, with p adjusted for every head at every class of token."""
    recovered = recovered_by_class(result, stage, "head", "head_token", settings)
    dims = "token_class_name layer head"
    variables = averages(
        result, recovered, "head_recovery", dims, "mean recovery with one head exchanged", settings
    )
    variables["head_p"] = quantity(
        compare_pairs(recovered[used_prompts(result)], seed=settings.seed),
        dims,
        "p by flipping signs of prompts, adjusted for all heads",
    )
    return xr.merge([stage, xr.Dataset(variables)], join="outer")
