"""One token of the subject at a time, and other doses of the noise."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence import text_coordinate
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments.causal_trace.conclude.averages import (
    mean_over_prompts,
)
from layerscope.experiments.causal_trace.conclude.readouts import (
    ends_of,
    read_out,
    used_prompts,
)
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.maths.permutation import Contrast, least_p_of_splits, pairwise_contrasts
from layerscope.maths.recovery import recovery
from layerscope.maths.transitions import transition
from layerscope.results.escaping import restored
from layerscope.results.schema import quantity


def one_by_one(result: xr.Dataset, stage: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Where the subject's last token, and the prompt's, take over from each token of a subject."""
    alone = read_out(stage, "alone", settings).mean("sample")
    values = alone.transpose("subject_token", "place", "depth").values
    loss = read_out(stage, "alone_noised", settings).mean("sample").values
    clean, _ = ends_of(result, settings)
    index = {name: place for place, name in enumerate(result.prompt.values.tolist())}
    rows = np.array([index[owner] for owner in stage.subject_token_prompt.values.tolist()])
    ends = (loss, clean[rows]) if settings.direction == "restore" else (clean[rows], loss)
    scaled = recovery(values, noised=ends[0][:, None, None], clean=ends[1][:, None, None])
    enough = (clean[rows] - loss >= settings.smallest) & used_prompts(result)[rows]
    scaled[~enough] = np.nan
    handover = np.full((len(rows), 2), np.nan)
    for token in np.flatnonzero(enough):
        own, of_subject, last = scaled[token]
        handover[token, 0] = transition(own, of_subject).layer
        handover[token, 1] = transition(own, last).layer
    from_end = np.array(
        [
            int((stage.subject_token_position.values[rows == row]).max()) - int(position)
            for row, position in zip(rows, stage.subject_token_position.values, strict=True)
        ]
    )
    variables = {
        "alone_recovery": quantity(
            scaled, "subject_token place depth", "recovery, one token corrupted alone"
        ),
        "handover": quantity(
            handover, "subject_token handed_to", "crossover depth from a token of the subject", "layer"
        ),
        "tokens_to_subject_end": quantity(from_end, "subject_token", "tokens to the subject's last one"),
        "peak_depth": quantity(
            _peaks(scaled[:, 1], enough & (from_end > 0)),
            "subject_token",
            "depth at which the subject's last token restores most of what was lost by one before it",
            "layer",
        ),
    }
    near = sorted(set(from_end.tolist()))
    for name, dims, long_name, units in (
        ("handover", "handed_to", "mean crossover depth", "layer"),
        ("peak_depth", "", "mean depth of that peak", "layer"),
        ("alone_recovery", "place depth", "mean recovery, one token of the subject corrupted alone", "1"),
    ):
        values = variables[name].values
        means = stacked([mean_over_prompts(settings)(values[from_end == distance]) for distance in near])
        variables |= interval_variables(
            f"mean_{name}", means, f"subject_end_distance {dims}".strip(), long_name, units
        )
    return xr.merge([stage, xr.Dataset(variables)], join="outer").assign_coords(
        handed_to=text_coordinate(
            ("the subject's last token", "the last token"), "handed_to", "to which token"
        ),
        subject_end_distance=xr.Variable(
            ("subject_end_distance",), np.array(near), {"long_name": "tokens to the subject's last one"}
        ),
    )


def _peaks(recoveries: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Depth of the largest value of each counted row [row depth]; NaN where none is above zero."""
    rows = np.where(np.isnan(recoveries), -np.inf, recoveries)
    known = counted & (rows.max(axis=1) > 0)
    return np.where(known, rows.argmax(axis=1), np.nan)


def doses(result: xr.Dataset, stage: xr.Dataset, settings: Settings) -> xr.Dataset:
    """At every dose: crossovers, categories against each other, and how often a patch does harm."""
    at_doses = read_out(stage, "dose", settings).mean("sample")
    rows = at_doses.transpose("prompt", "dose", "dose_row", "depth").values
    noised = read_out(stage, "dose_noised", settings).mean("sample").values
    names = stage.prompt.values.tolist()
    whole = result.sel(prompt=names)
    clean, _ = ends_of(whole, settings)
    ends = (noised, clean[:, None] + 0 * noised)
    if settings.direction == "corrupt":
        ends = (ends[1], ends[0])
    scaled = recovery(rows, noised=ends[0][..., None, None], clean=ends[1][..., None, None])
    enough = clean[:, None] - noised >= settings.smallest
    scaled[~enough] = np.nan
    layers = np.full(enough.shape, np.nan)
    for cell in np.argwhere(enough):
        layers[tuple(cell)] = transition(*scaled[tuple(cell)]).layer
    harmful = np.where(np.isnan(scaled).any((2, 3)), np.nan, (scaled < -0.01).mean((2, 3)))
    category = [restored(str(name)) for name in whole.prompt_category.values]
    contrasts = [
        pairwise_contrasts(
            layers[:, dose], category, seed=settings.seed, level=settings.level, resamples=settings.resamples
        )
        for dose in range(len(settings.doses))
    ]
    variables = {
        "dose_transition": quantity(layers, "prompt dose", "crossover depth at this dose", "layer"),
        "dose_harmful": quantity(harmful, "prompt dose", "share of patches that lower the metric"),
        "dose_used": quantity(enough.sum(axis=0), "dose", "prompts whose metric falls enough"),
    } | interval_variables(
        "mean_dose_harmful",
        mean_over_prompts(settings)(harmful),
        "dose",
        "share of patches that lower the metric",
    )
    coords = {}
    if contrasts[0]:
        variables |= _contrasted(contrasts)
        coords["dose_contrast"] = text_coordinate(
            [f"{c.a} − {c.b}" for c in contrasts[0]], "dose_contrast", "pair of categories"
        )
    further = xr.Dataset(variables, coords={"prompt": stage.prompt, "dose": stage.dose} | coords)
    return xr.merge([stage, further], join="outer", compat="override").reindex(prompt=result.prompt)


def _contrasted(at_doses: list[list[Contrast]]) -> dict[str, xr.Variable]:
    """Pairs of categories at every dose, with the smallest p that their numbers of prompts allowed."""
    where = "dose dose_contrast"

    def column(attribute: str) -> np.ndarray:
        return np.array([[getattr(pair, attribute) for pair in at_dose] for at_dose in at_doses], dtype=float)

    found = {
        f"dose_{name}": quantity(column(name), where, f"{name.replace('_', ' ')} of crossover depths", units)
        for name, units in (("difference", "layer"), ("low", "layer"), ("high", "layer"), ("p_adjusted", "1"))
    }
    for group, name in (("a", "first"), ("b", "second")):
        found[f"dose_n_{name}"] = quantity(column(f"n_{group}"), where, f"prompts of the {name} category")
    least = np.array([[least_p_of_splits(p.n_a, p.n_b) for p in at_dose] for at_dose in at_doses])
    several = np.isfinite(column("p")).sum(axis=1, keepdims=True)
    found["dose_least_p"] = quantity(least, where, "smallest p that was possible")
    found["dose_least_p_adjusted"] = quantity(
        np.minimum(1, least * several), where, "smallest adjusted p that was possible"
    )
    return found
