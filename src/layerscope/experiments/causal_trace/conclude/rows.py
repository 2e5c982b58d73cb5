"""Recovery, the rows of each prompt, where they cross, and their averages by category."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence import named, side_by_side
from layerscope.experiments.causal_trace.conclude.averages import over_used
from layerscope.experiments.causal_trace.conclude.readouts import (
    ROWS,
    ends_of,
    read_out,
    rows_of_tokens,
    scale_of,
    traced,
    used_prompts,
)
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.maths.recovery import range_is_large_enough, recovery
from layerscope.maths.transitions import routed_elsewhere, transition
from layerscope.results.escaping import restored, stored
from layerscope.results.schema import quantity

_PER_PROMPT = {
    "transition_layer": ("crossover depth: the last token takes over from the corrupted tokens", "layer"),
    "onset": ("depth at which the last token's recovery passes 10 % for the last time", "layer"),
    "width": ("layers from 10 % to 90 % recovery at the last token", "layer"),
    "crossings": ("how often the two rows cross", "1"),
    "routed_elsewhere": ("share of the recovery that lies at tokens neither corrupted nor last", "1"),
}


def filled_subjects(result: xr.Dataset) -> xr.Dataset:
    """Where one token is corrupted, restoring all corrupted tokens together is restoring this one."""
    kinds = [kind for kind in ("log_probability", "probability", "metric") if f"subject_{kind}" in result]
    filled = {}
    for kind in kinds:
        values = result[f"subject_{kind}"].values.copy()
        for index, tokens in traced(result):
            alone = tokens[result.noised.values[tokens]]
            if len(alone) == 1:
                values[index] = result[f"restored_{kind}"].values[alone[0]]
        filled[f"subject_{kind}"] = result[f"subject_{kind}"].copy(data=values)
    return result.assign(filled)


def with_probabilities(clean: xr.Dataset, noised: xr.Dataset) -> xr.Dataset:
    """The clean and the corrupted stage together, with probabilities beside log-probabilities."""
    probabilities = {
        "noised_probability": ("noised_log_probability", "probability of the answer in the corrupted run"),
        "subject_probability": (
            "subject_log_probability",
            "probability of the answer with all corrupted tokens restored together",
        ),
    }
    noised = noised.assign(
        {
            name: quantity(
                np.exp(noised[source].values), [str(dim) for dim in noised[source].dims], long_name
            )
            for name, (source, long_name) in probabilities.items()
        }
    )
    return xr.merge([clean, noised.reindex(prompt=clean.prompt)], compat="override", join="left")


def with_restored(trace: xr.Dataset) -> xr.Dataset:
    """The trace with probabilities beside log-probabilities."""
    return trace.assign(
        restored_probability=quantity(
            np.exp(trace.restored_log_probability.values),
            "token depth sample",
            "probability of the answer with one state restored",
        )
    )


def leave_out_small_ranges(result: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Prompts whose metric corruption changes too little are left out, with the reason."""
    clean, noised = ends_of(result, settings)
    reasons = result.left_out_because.values.astype(object)
    smallest = settings.smallest
    reasons[(reasons == "") & ~np.isfinite(noised)] = "the model's output in the corrupted run is not finite"
    small = (reasons == "") & ~range_is_large_enough(clean, noised, smallest)
    for index in np.flatnonzero(small):
        reasons[index] = stored(
            f"corruption lowers the {settings.metric.replace('_', '-')} by {clean[index] - noised[index]:.3f} only, "
            f"less than smallest_range = {smallest:g}"
        )
    return result.assign(
        left_out_because=quantity(reasons.astype(str), "prompt", "why the prompt is left out, or empty"),
        metric_range=quantity(
            clean - noised, "prompt", f"fall of the {settings.metric.replace('_', '-')} under corruption"
        ),
    )


def recoveries_of(result: xr.Dataset, settings: Settings) -> dict[str, xr.Variable]:
    """Recovery at every token and depth."""
    patched = read_out(result, "restored", settings).mean("sample").values
    nothing, everything = scale_of(result, settings)
    values = np.full(patched.shape, np.nan)
    for index, rows in traced(result):
        if result.left_out_because.values[index] == "":
            values[rows] = recovery(patched[rows], noised=nothing[index], clean=everything[index])
    return {"recovery": quantity(values, "token depth", "recovery of the answer with one state restored")}


def rows_of_prompts(result: xr.Dataset, settings: Settings) -> dict[str, xr.Variable]:
    """Recovery of the corrupted tokens together, the last token, and the mean of others, prompt by prompt."""
    recoveries = result.recovery.values
    subject = read_out(result, "subject", settings).mean("sample").values
    nothing, everything = scale_of(result, settings)
    rows = np.full((result.sizes["prompt"], len(ROWS), result.sizes["depth"]), np.nan)
    for index, (_, last, others) in rows_of_tokens(result):
        rows[index, 0] = recovery(subject[index], noised=nothing[index], clean=everything[index])
        rows[index, 1] = recoveries[last]
        if others.size:
            rows[index, 2] = recoveries[others].mean(axis=0)
    return {"prompt_recovery": quantity(rows, "prompt row depth", "recovery with the row's tokens restored")}


def transitions_of(result: xr.Dataset, settings: Settings) -> dict[str, xr.Variable]:
    """Where the rows cross, prompt by prompt, and what else their curves tell."""
    numbers = {name: np.full(result.sizes["prompt"], np.nan) for name in _PER_PROMPT}
    for index, tokens in traced(result):
        if result.left_out_because.values[index] != "":
            continue
        rows = result.prompt_recovery.values[index]
        found = transition(rows[0], rows[1])
        numbers["transition_layer"][index] = found.layer
        numbers["onset"][index], numbers["width"][index] = found.onset, found.width
        numbers["crossings"][index] = found.crossings
        noised = np.flatnonzero(result.noised.values[tokens]).tolist()
        if settings.positions == "all":
            numbers["routed_elsewhere"][index] = routed_elsewhere(
                result.recovery.values[tokens], noised=noised, last=len(tokens) - 1
            )
    return {name: quantity(values, "prompt", *_PER_PROMPT[name]) for name, values in numbers.items()}


def averages_of_rows(result: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Rows and crossovers averaged over prompts, and categories against each other."""
    used, category = used_prompts(result), result.prompt_category.to_numpy()
    curves, crossover = result.prompt_recovery, result.transition_layer
    by_category = {
        restored(str(one)): _means_of(
            result,
            used & (category == one),
            settings,
            named(curves, "average_recovery", "mean recovery over prompts"),
            named(crossover, "mean_transition", "mean crossover depth over prompts", "layer"),
        )
        for one in dict.fromkeys(category)
    }
    elsewhere = named(
        result.routed_elsewhere,
        "mean_routed_elsewhere",
        "mean share of recovery at tokens neither corrupted nor last",
    )
    over = over_used(result, settings)
    # Whole curves of resamples are kept: what lies beside other experiments' curves is resampled with them.
    overall = named(curves.isel(prompt=used), "overall_recovery", "mean recovery over all prompts")
    gaps = named(crossover.isel(prompt=used), "crossover", "crossover depth", "layer")
    parts = [
        side_by_side(by_category, "category", "category of prompts"),
        _means_of(result, used, settings, elsewhere),
        over.mean(overall, draws=True),
        over.contrasts(gaps, category[used]),
    ]
    return xr.merge(parts, join="outer")


def _means_of(result: xr.Dataset, rows: np.ndarray, settings: Settings, *values: xr.DataArray) -> xr.Dataset:
    over = over_used(result, settings, rows)
    return xr.merge([over.mean(one.isel(prompt=rows)) for one in values])
