"""What a causal trace says once its samples are there: recovery, rows, transitions, contrasts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments import _trace_conclusions
from layerscope.experiments._contract import Earlier
from layerscope.experiments._coordinates import groups_along, text_coordinate
from layerscope.experiments._summaries import contrast_variables, interval_variables, stacked
from layerscope.maths.bootstrap import Interval, bootstrap_mean
from layerscope.maths.permutation import pairwise_contrasts
from layerscope.maths.recovery import range_is_large_enough, recovery
from layerscope.maths.transitions import routed_elsewhere, transition
from layerscope.results.schema import quantity, write_json
from layerscope.results.words import restored, stored

ROWS = ("noised tokens", "last token", "other tokens")
_PER_PROMPT = {
    "transition_layer": ("depth at which the last token takes over from the noised tokens", "block"),
    "onset": ("depth at which the last token's recovery passes 10 % for the last time", "block"),
    "width": ("blocks from 10 % to 90 % recovery at the last token", "block"),
    "crossings": ("how often the two rows change places", "1"),
    "routed_elsewhere": ("share of the recovery that lies at tokens neither noised nor last", "1"),
}


def conclude(stages: Earlier, settings: Any, *, noise_sd: float) -> xr.Dataset:
    """The whole result of a trace from its saved samples.

    Probabilities are averaged over noise draws, then made into a recovery per prompt, then averaged
    over prompts: a ratio of means, which one lucky draw cannot blow up.
    """
    vectors = [name for name in ("subject_vector", "entry") if name in stages["clean"].variables]
    clean = stages["clean"].drop_vars(vectors)
    result = xr.merge(
        [_with_probabilities(clean, stages["noised"]), _restored(stages["trace"])],
        compat="no_conflicts",
        join="outer",
    )
    result = _filled_subjects(result.sel(prompt=stages["clean"].prompt))
    result = _leave_out_small_ranges(result, settings)
    result = result.assign(_recoveries(result, settings))
    result = result.assign(_rows_of_prompts(result, settings)).assign_coords(
        row=text_coordinate(ROWS, "row", "row of the trace")
    )
    result = result.assign(_transitions(result, settings))
    result = xr.merge([result, _averages(result, settings)], join="outer")
    result = _trace_conclusions.add_conclusions(result, stages, settings)
    result = result.assign(
        noise_sd=quantity(noise_sd, "", "standard deviation of the noise", "residual-stream units")
    )
    return write_json(result, cautions=_cautions(result, settings))


def _filled_subjects(result: xr.Dataset) -> xr.Dataset:
    """Where one token is noised, exchanging all noised tokens together is exchanging this one."""
    kinds = [kind for kind in ("log_probability", "probability", "metric") if f"subject_{kind}" in result]
    filled = {}
    for kind in kinds:
        values = result[f"subject_{kind}"].values.copy()
        for index, tokens in _traced(result):
            alone = tokens[result.noised.values[tokens]]
            if len(alone) == 1:
                values[index] = result[f"restored_{kind}"].values[alone[0]]
        filled[f"subject_{kind}"] = result[f"subject_{kind}"].copy(data=values)
    return result.assign(filled)


def _with_probabilities(clean: xr.Dataset, noised: xr.Dataset) -> xr.Dataset:
    probabilities = {
        "noised_probability": ("noised_log_probability", "probability of the answer under noise"),
        "subject_probability": (
            "subject_log_probability",
            "probability of the answer with all noised tokens restored together",
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


def _restored(trace: xr.Dataset) -> xr.Dataset:
    return trace.assign(
        restored_probability=quantity(
            np.exp(trace.restored_log_probability.values),
            "token depth sample",
            "probability of the answer with one state restored",
        )
    )


def _leave_out_small_ranges(result: xr.Dataset, settings: Any) -> xr.Dataset:
    clean, noised = ends_of(result, settings)
    reasons = result.left_out_because.values.astype(object)
    smallest = settings.smallest
    reasons[(reasons == "") & ~np.isfinite(noised)] = "the model's output under noise is not finite"
    small = (reasons == "") & ~range_is_large_enough(clean, noised, smallest)
    for index in np.flatnonzero(small):
        reasons[index] = stored(
            f"noise lowers the {settings.metric.replace('_', '-')} by {clean[index] - noised[index]:.3f} only, "
            f"less than smallest_range = {smallest:g}"
        )
    return result.assign(
        left_out_because=quantity(reasons.astype(str), "prompt", "why the prompt is left out, or empty"),
        metric_range=quantity(
            clean - noised, "prompt", f"fall of the {settings.metric.replace('_', '-')} under noise"
        ),
    )


def read_out(result: xr.Dataset, which: str, settings: Any) -> xr.DataArray:
    """The chosen metric of some runs: "clean", "noised", "subject", "restored", ..."""
    if settings.metric == "probability":
        log_probability: xr.DataArray = result[f"{which}_log_probability"]
        return log_probability.copy(data=np.exp(log_probability.values))
    return result[f"{which}_{settings.metric if settings.of_answer else 'metric'}"]


def ends_of(result: xr.Dataset, settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """The metric of each prompt in the clean run, and its mean under noise."""
    # The clean stage reads the first token alone; the noised stage read all that is traced.
    clean = "clean_answer" if "clean_answer_log_probability" in result else "clean"
    noised = read_out(result, "noised", settings).mean("sample")
    return read_out(result, clean, settings).values, noised.values


def scale_of(result: xr.Dataset, settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """The metric where an exchange does nothing (recovery 0), and where it does everything (1)."""
    clean, noised = ends_of(result, settings)
    return (noised, clean) if settings.direction == "restore" else (clean, noised)


def _traced(result: xr.Dataset) -> Iterator[tuple[int, np.ndarray]]:
    """Index of each prompt that was traced, and the rows of its tokens."""
    tokens = groups_along(result, "token_prompt")
    for index, name in enumerate(result.prompt.values):
        if str(name) in tokens:
            yield index, tokens[str(name)]


def _recoveries(result: xr.Dataset, settings: Any) -> dict[str, xr.Variable]:
    patched = read_out(result, "restored", settings).mean("sample").values
    nothing, everything = scale_of(result, settings)
    values = np.full(patched.shape, np.nan)
    for index, rows in _traced(result):
        if result.left_out_because.values[index] == "":
            values[rows] = recovery(patched[rows], noised=nothing[index], clean=everything[index])
    return {"recovery": quantity(values, "token depth", "recovery of the answer with one state restored")}


def _rows_of_prompts(result: xr.Dataset, settings: Any) -> dict[str, xr.Variable]:
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


def rows_of_tokens(result: xr.Dataset) -> Iterator[tuple[int, tuple[np.ndarray, int, np.ndarray]]]:
    """Index of each prompt that is used, and its tokens by row: noised ones, the last one, others."""
    for index, tokens in _traced(result):
        if result.left_out_because.values[index] == "":
            noised = tokens[result.noised.values[tokens]]
            last = int(tokens[np.argmax(result.position.values[tokens])])
            yield index, (noised, last, np.setdiff1d(tokens, [*noised, last]))


def _transitions(result: xr.Dataset, settings: Any) -> dict[str, xr.Variable]:
    numbers = {name: np.full(result.sizes["prompt"], np.nan) for name in _PER_PROMPT}
    for index, tokens in _traced(result):
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


def _averages(result: xr.Dataset, settings: Any) -> xr.Dataset:
    used = result.left_out_because.values == ""
    category = result.prompt_category.values
    names = [str(name) for name in dict.fromkeys(category)]
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)

    def over_prompts(values: np.ndarray, rows: np.ndarray) -> Interval:
        return mean(values[rows])

    by_category = [used & (category == name) for name in names]
    rows, layers = result.prompt_recovery.values, result.transition_layer.values
    averages = xr.Dataset(
        interval_variables(
            "average_recovery",
            stacked([over_prompts(rows, group) for group in by_category]),
            "category row depth",
            "mean recovery over prompts",
        )
        | interval_variables(
            "overall_recovery", over_prompts(rows, used), "row depth", "mean recovery over all prompts"
        )
        | interval_variables(
            "mean_transition",
            stacked([over_prompts(layers, group) for group in by_category]),
            "category",
            "mean transition depth over prompts",
            "block",
        )
        | interval_variables(
            "mean_routed_elsewhere",
            over_prompts(result.routed_elsewhere.values, used),
            "",
            "mean share of recovery at tokens neither noised nor last",
        ),
        coords={
            "category": text_coordinate([restored(name) for name in names], "category", "category of prompts")
        },
    )
    contrasts = pairwise_contrasts(
        layers[used],
        [restored(str(name)) for name in category[used]],
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
    )
    return xr.merge([averages, contrast_variables(contrasts, "transition depth", "block")], join="outer")


def _cautions(result: xr.Dataset, settings: Any) -> list[str]:
    used = result.left_out_because.values == ""
    many = int((result.crossings.values[used] > 1).sum())
    long = int((result.answer_tokens.values[used] > 1).sum()) if settings.answer == "first" else 0
    notes = [str(note) for note in result.note.values[used] if note]
    found = [
        (many, "the two rows change places more than once; the last time is taken as the transition"),
        (long, "the answer has several tokens; the probability of the first is read"),
        (len(notes), f"something was done differently, for example: {restored(notes[0]) if notes else ''}"),
    ]
    if settings.samples == "auto":
        bounded = int((result.draws.values[used] > settings.most_samples - settings.together).sum())
        found.append(
            (
                bounded,
                f"they may need more than most_samples = {settings.most_samples} draws for a precision of "
                f"{settings.precision:g}; draws_half_width says what was reached",
            )
        )
    cautions = [f"{count} of {int(used.sum())} prompts: {what}." for count, what in found if count]
    empty = "output_log_probability" in result and bool(result.output_log_probability.isnull().all())
    if empty:
        cautions.append("This model has no vectors added by attention and MLP that could be exchanged.")
    if settings.direction == "corrupt":
        cautions.append(
            "Noised states were put into the clean run: recovery is the share of the loss caused."
        )
    if settings.metric == "probability":
        cautions.append(
            "Probability hides states that speak against the answer; compare metric=log_probability."
        )
    return cautions
