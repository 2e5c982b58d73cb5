"""What attention, MLPs and single heads restore, and what goes through them, from saved samples."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence import named, text_coordinate
from layerscope.evidence.families import with_p
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments.causal_trace.conclude.averages import (
    averages,
    indirect_by_class,
    over_used,
    recovered_by_class,
)
from layerscope.experiments.causal_trace.conclude.readouts import used_prompts
from layerscope.experiments.causal_trace.measure.patches import OUTPUTS
from layerscope.experiments.causal_trace.measure.tokens import TOKEN_CLASSES
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.maths.bootstrap import Interval, bootstrap_statistic
from layerscope.maths.correlation import rank_correlation
from layerscope.maths.max_statistic import compare_pairs
from layerscope.maths.permutation import least_p_of_signs

LAST_SUBJECT, LAST = TOKEN_CLASSES[3], TOKEN_CLASSES[6]


def outputs(result: xr.Dataset, stage: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Recovery with outputs over a window restored, its peaks, and whether prompts agree about them."""
    recovered = recovered_by_class(result, stage, "output", "output_token", settings)
    indirect = indirect_by_class(result, stage, "output", "output_token", settings)
    peaks = _peaks(recovered)
    means = averages(
        result,
        recovered,
        "output_recovery",
        "mean recovery with outputs over a window restored",
        settings,
        together=("layer",),
    )
    effect = named(
        indirect.isel(prompt=used_prompts(result)),
        "output_effect",
        "mean change of the metric with outputs over a window patched (AIE)",
    )
    window = named(settings.window_of(stage.sizes["layer"]), "window", "layers in a window", "layer")
    parts: list[xr.Dataset | xr.DataArray] = [
        means,
        over_used(result, settings).mean(effect),
        peaks,
        window,
        _agreement(result, peaks, settings),
    ]
    return xr.merge([stage, *parts], join="outer")


def _peaks(recovered: xr.DataArray) -> xr.DataArray:
    """The layer at which attention at the last token restores most, and MLPs at the subject's [prompt site]."""
    found = np.full((recovered.sizes["prompt"], len(OUTPUTS)), np.nan)
    for site, place in enumerate((LAST, LAST_SUBJECT)):  # attention at the end, MLPs at the subject
        curves = recovered.sel(token_class_name=place).isel(site=site).transpose("prompt", "layer").to_numpy()
        known = np.isfinite(curves).all(axis=1)
        found[known, site] = curves[known].argmax(axis=1)
    said = "layer of the highest recovery: attention at the last token, MLPs at the subject's"
    return named(found, "window_peak", said, "layer", dims=("prompt", "site"))


def _agreement(result: xr.Dataset, peaks: xr.DataArray, settings: Settings) -> xr.Dataset:
    """Do prompts that cross late have late peaks? Rank correlations over prompts."""
    used = used_prompts(result)
    crossover, attention, mlp = result.transition_layer.to_numpy(), *peaks.to_numpy().T
    columns = {
        "transition and attention's window peak": (crossover, attention),
        "transition and the MLPs' window peak": (crossover, mlp),
        "attention's and the MLPs' window peaks": (attention, mlp),
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


def severed(result: xr.Dataset, stage: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Recovery with a state restored and its MLPs or attention severed, and what that loses."""
    recovered = recovered_by_class(result, stage, "severed", "severed_token", settings)
    whole = recovered_by_class(result, result, "restored", "token", settings)
    # No layer follows the last depth, so that there nothing can be severed.
    before = whole.isel(depth=slice(-1)).rename(depth="layer").assign_coords(layer=recovered.layer)
    kinds = {
        "severed_recovery": (recovered, "mean recovery with one state restored and others severed"),
        "severed_loss": (
            (before - recovered).transpose(*recovered.dims),
            "recovery that goes through what is severed",
        ),
    }
    means = [
        averages(result, values, name, what, settings, together=("layer",))
        for name, (values, what) in kinds.items()
    ]
    return xr.merge([stage, *means], join="outer")


def heads(result: xr.Dataset, stage: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Recovery by single heads, with p adjusted for every head at every class of token."""
    recovered = recovered_by_class(result, stage, "head", "head_token", settings)
    what = "mean recovery with one head restored"
    means = averages(result, recovered, "head_recovery", what, settings, together=("layer", "head"))
    used = recovered.isel(prompt=used_prompts(result)).to_numpy()
    tested = with_p(
        "head_recovery",
        recovered.dims[1:],
        compare_pairs(used, seed=settings.seed),
        np.full(used.shape[1:], least_p_of_signs(len(used), resamples=4096)),
        "p by flipping signs of prompts, adjusted for all heads",
        "head_p",
    )
    return xr.merge([stage, means, xr.Dataset(tested)], join="outer")
