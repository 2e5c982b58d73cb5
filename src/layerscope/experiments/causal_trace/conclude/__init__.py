"""Everything that a causal trace concludes, from saved samples alone: draws are averaged first, prompts last."""

from __future__ import annotations

import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import measure, text_coordinate
from layerscope.experiments.causal_trace.conclude.averages import over_draws
from layerscope.experiments.causal_trace.conclude.categories import (
    contrasts_over_depth,
    effects,
    matched_pairs,
    regression,
)
from layerscope.experiments.causal_trace.conclude.components import heads, outputs, severed
from layerscope.experiments.causal_trace.conclude.readouts import ROWS, used_prompts
from layerscope.experiments.causal_trace.conclude.rows import (
    averages_of_rows,
    filled_subjects,
    leave_out_small_ranges,
    recoveries_of,
    rows_of_prompts,
    transitions_of,
    with_probabilities,
    with_restored,
)
from layerscope.experiments.causal_trace.conclude.screen import screen
from layerscope.experiments.causal_trace.conclude.variants import doses, one_by_one
from layerscope.experiments.causal_trace.items.kept import noise_sd
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.results.escaping import restored
from layerscope.results.schema import quantity, write_json


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """The whole result of a trace from its saved samples.

    Probabilities are averaged over noise draws, then made into a recovery per prompt, then averaged
    over prompts: a ratio of means, which one lucky draw cannot blow up.
    """
    vectors = [name for name in ("subject_vector", "entry") if name in stages["clean"].variables]
    clean = stages["clean"].drop_vars(vectors)
    result = xr.merge(
        [with_probabilities(clean, stages["noised"]), with_restored(stages["trace"])],
        compat="no_conflicts",
        join="outer",
    )
    result = filled_subjects(result.sel(prompt=stages["clean"].prompt))
    result = leave_out_small_ranges(result, settings)
    result = result.assign(recoveries_of(result, settings))
    result = result.assign(rows_of_prompts(result, settings)).assign_coords(
        row=text_coordinate(ROWS, "row", "row of the trace")
    )
    result = result.assign(transitions_of(result, settings))
    result = xr.merge([result, averages_of_rows(result, settings)], join="outer")
    result = _further(result, stages, settings)
    result = result.assign(
        noise_sd=quantity(
            noise_sd(stages["clean"], settings),
            "",
            "standard deviation of the noise",
            "residual-stream units",
        )
    )
    return write_json(result, cautions=_cautions(result, settings))


def _cautions(result: xr.Dataset, settings: Settings) -> list[str]:
    used = used_prompts(result)
    many = int((result.crossings.values[used] > 1).sum())
    long = int((result.answer_tokens.values[used] > 1).sum()) if settings.answer == "first" else 0
    notes = [str(note) for note in result.note.values[used] if note]
    found = [
        (many, "the last token takes over more than once; the last time is the crossover depth"),
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
        cautions.append("This model has no vectors added by attention and MLPs that could be restored.")
    if settings.direction == "corrupt":
        cautions.append(
            "States of the clean run were corrupted one by one: recovery is the share of the loss caused."
        )
    if settings.metric == "probability":
        cautions.append(
            "Probability hides states that speak against the answer; compare metric=log_probability."
        )
    return cautions


def _further(result: xr.Dataset, stages: Earlier, settings: Settings) -> xr.Dataset:
    """The result with every further conclusion that its stages allow."""
    pieces = [
        effects(result, settings),
        contrasts_over_depth(result, settings),
        matched_pairs(result, settings),
        regression(result, settings),
        xr.Dataset(over_draws(result, settings)),
    ]
    for name, conclude in (
        ("outputs", outputs),
        ("severed", severed),
        ("heads", heads),
        ("one by one", one_by_one),
        ("doses", doses),
        ("screen", screen),
    ):
        stage = stages.get(name)
        if stage is not None and stage.sizes:
            pieces.append(conclude(result, stage, settings))
    return xr.merge([result, *pieces], join="outer", compat="no_conflicts")


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """Recovery at the last and at the corrupted tokens, all prompts together; the null is that of tokens beside."""
    beside = result.overall_recovery.sel(row="other tokens", drop=True)
    return {
        f"recovery_{name}": measure(
            result,
            "overall_recovery",
            label=f"recovery at the {row}",
            sense=f"the clean state of the {row} alone brings the answer back",
            questions="where information moves",
            null=beside,
            row=key,
        )
        for name, key, row in (
            ("last", "last token", "last token"),
            ("subject", "noised tokens", "corrupted tokens"),
        )
    }
