"""One token of the subject at a time, and other doses of the noise."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence import number_coordinate, text_coordinate
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments.causal_trace.conclude.averages import mean_over_prompts
from layerscope.experiments.causal_trace.conclude.readouts import ends_of, owners_of, read_out, used_prompts
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.maths.permutation import Contrast, least_p_of_splits, pairwise_contrasts
from layerscope.maths.recovery import recovery
from layerscope.maths.transitions import transition
from layerscope.results.escaping import restored
from layerscope.results.schema import quantity

_HANDED_TO = ("the subject's last token", "the last token")


def one_by_one(result: xr.Dataset, stage: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Where the subject's last token, and the prompt's, take over from each token of a subject."""
    recovered, position = _recovered_alone(result, stage, settings), stage.subject_token_position.to_numpy()
    owners = stage.subject_token_prompt.to_numpy()
    from_end = np.array([position[owners == owner].max() for owner in owners]) - position
    taken_over = [[transition(own, other).layer for other in others] for own, *others in recovered]
    peaks = _peaks(recovered[:, 1], from_end > 0)
    each = {
        "alone_recovery": (recovered, "place depth", "recovery, one token corrupted alone", "1"),
        "handover": (taken_over, "handed_to", "crossover depth from a token of the subject", "layer"),
        "peak_depth": (
            peaks,
            "",
            "depth at which the subject's last token restores most of what was lost by one before it",
            "layer",
        ),
        "tokens_to_subject_end": (from_end, "", "tokens to the subject's last one", "1"),
    }
    variables = {
        name: quantity(values, f"subject_token {dims}", what, units)
        for name, (values, dims, what, units) in each.items()
    }
    found = xr.Dataset(
        variables, coords={"handed_to": text_coordinate(_HANDED_TO, "handed_to", "to which token")}
    )
    return xr.merge([stage, found, _by_distance(found, settings)], join="outer")


def _recovered_alone(result: xr.Dataset, stage: xr.Dataset, settings: Settings) -> np.ndarray:
    """Recovery with one token corrupted and one restored [subject_token place depth].

    NaN where the prompt is left out, or where corrupting this token alone changes too little.
    """
    alone = read_out(stage, "alone", settings).mean("sample")
    values = alone.transpose("subject_token", "place", "depth").to_numpy()
    loss = read_out(stage, "alone_noised", settings).mean("sample").to_numpy()
    owners = owners_of(result, stage, "subject_token")
    clean = ends_of(result, settings)[0][owners]
    ends = (loss, clean) if settings.direction == "restore" else (clean, loss)
    scaled = recovery(values, noised=ends[0][:, None, None], clean=ends[1][:, None, None])
    scaled[~((clean - loss >= settings.smallest) & used_prompts(result)[owners])] = np.nan
    return np.asarray(scaled)


def _by_distance(each: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Means over tokens that stand equally far before the last one of their subject."""
    from_end = each.tokens_to_subject_end.to_numpy()
    near = sorted(set(from_end.tolist()))
    variables: dict[str, xr.Variable] = {}
    for name, long_name in (
        ("handover", "mean crossover depth"),
        ("peak_depth", "mean depth of that peak"),
        ("alone_recovery", "mean recovery, one token of the subject corrupted alone"),
    ):
        values = each[name]
        means = stacked([mean_over_prompts(settings)(values.to_numpy()[from_end == n]) for n in near])
        dims = ("subject_end_distance", *map(str, values.dims[1:]))
        variables |= interval_variables(f"mean_{name}", means, dims, long_name, values.attrs["units"])
    distance = number_coordinate(near, "subject_end_distance", "tokens to the subject's last one")
    return xr.Dataset(variables, coords={"subject_end_distance": distance})


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
