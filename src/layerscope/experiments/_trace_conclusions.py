"""What a causal trace concludes beside its rows: effects by class of token, contrasts, windows, severing, doses.

Everything from saved samples: draws are averaged first, then tokens of a class, then prompts.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments import _trace_components, _trace_screen_conclusions, _tracing
from layerscope.experiments._contract import Earlier
from layerscope.experiments._coordinates import text_coordinate
from layerscope.experiments._summaries import interval_variables, stacked
from layerscope.experiments._trace_averages import (
    indirect_by_class,
    mean_over_prompts,
    over_draws,
    used_prompts,
)
from layerscope.experiments._trace_measures import TOKEN_CLASSES
from layerscope.maths.bootstrap import bootstrap_difference
from layerscope.maths.max_statistic import compare_curves
from layerscope.maths.permutation import holm, pairwise_contrasts, sign_flip_p
from layerscope.maths.recovery import recovery
from layerscope.maths.regression import regress
from layerscope.maths.transitions import transition
from layerscope.results.schema import quantity
from layerscope.results.words import restored


def add_conclusions(result: xr.Dataset, stages: Earlier, settings: Any) -> xr.Dataset:
    """The result with every further conclusion that its stages allow."""
    pieces = [_effects(result, settings), _contrasts_over_depth(result, settings), _pairs(result, settings)]
    pieces.append(_regression(result, settings))
    pieces.append(xr.Dataset(over_draws(result, settings)))
    for name, conclude in (
        ("outputs", _trace_components.outputs),
        ("severed", _trace_components.severed),
        ("heads", _trace_components.heads),
        ("one by one", _one_by_one),
        ("doses", _doses),
        ("screen", _trace_screen_conclusions.conclude),
    ):
        stage = stages.get(name)
        if stage is not None and stage.sizes:
            pieces.append(conclude(result, stage, settings))
    return xr.merge([result, *pieces], join="outer", compat="no_conflicts")


# -- effects in the metric's own units, by class of token ----------------------------------------


def _effects(result: xr.Dataset, settings: Any) -> xr.Dataset:
    """ROME's total effect, and the indirect effect of one state by class of token and depth."""
    used, mean = used_prompts(result), mean_over_prompts(settings)
    clean, noised = _tracing.ends_of(result, settings)
    total = interval_variables(
        "total_effect", mean((clean - noised)[used]), "", "mean fall of the metric under noise (ATE)"
    )
    if "token_class" not in result.coords:
        return xr.Dataset(total)
    indirect = indirect_by_class(result, result, "restored", "token", settings)
    averages = interval_variables(
        "indirect_effect",
        mean(indirect[used]),
        "token_class_name depth",
        "mean change of the metric with one state exchanged (AIE)",
    )
    return xr.Dataset(
        total | averages,
        coords={"token_class_name": text_coordinate(TOKEN_CLASSES, "token_class_name", "class of token")},
    )


# -- categories against each other --------------------------------------------------------------


def _contrasts_over_depth(result: xr.Dataset, settings: Any) -> xr.Dataset:
    """At which depths do categories differ in recovery at the last token? Largest statistic over depths."""
    used = used_prompts(result)
    category = result.prompt_category.values
    names = [name for name in dict.fromkeys(category[used].tolist()) if (used & (category == name)).sum() > 1]
    rows = result.prompt_recovery.sel(row="last token").values
    pairs = list(combinations(names, 2))
    if not pairs:
        return xr.Dataset()
    groups = [(rows[used & (category == a)], rows[used & (category == b)]) for a, b in pairs]
    p = np.stack([np.minimum(compare_curves(*both, seed=settings.seed).p * len(pairs), 1) for both in groups])
    of_sampling = {"seed": settings.seed, "level": settings.level, "resamples": settings.resamples}
    differences = stacked([bootstrap_difference(*both, **of_sampling) for both in groups])
    return xr.Dataset(
        interval_variables(
            "depth_difference", differences, "category_pair depth", "difference in recovery at the last token"
        )
        | {
            "depth_p": quantity(
                p, "category_pair depth", "p by permutation, adjusted for all depths and pairs"
            ),
        },
        coords={
            "category_pair": text_coordinate(
                [f"{restored(a)} − {restored(b)}" for a, b in pairs], "category_pair", "pair of categories"
            )
        },
    )


def _pairs(result: xr.Dataset, settings: Any) -> xr.Dataset:
    """Matched prompts, compared within their pairs: first category of the set less the second."""
    used, names = used_prompts(result), result.prompt_pair.values
    members: dict[str, list[int]] = {}
    for index in np.flatnonzero(used & (names != "")):
        members.setdefault(_pair_name(result, int(index)), []).append(int(index))
    layers, category = result.transition_layer.values, result.prompt_category.values
    differences: dict[tuple[str, str], list[float]] = {}
    for both in members.values():
        if len(both) != 2 or category[both[0]] == category[both[1]]:
            continue
        first, second = sorted(both, key=lambda index: str(category[index]))
        differences.setdefault((str(category[first]), str(category[second])), []).append(
            float(layers[first] - layers[second])
        )
    if not differences:
        return xr.Dataset()
    keys = list(differences)
    values = [np.array(differences[key]) for key in keys]
    tests = [sign_flip_p(value, seed=settings.seed) for value in values]
    means = stacked([mean_over_prompts(settings)(value) for value in values])
    return xr.Dataset(
        interval_variables(
            "paired_difference",
            means,
            "matched",
            "difference in transition depth within matched pairs",
            "block",
        )
        | {
            "paired_p": quantity(
                holm([p for p, _ in tests]), "matched", "p by flipping signs of pairs, Holm over comparisons"
            )
        },
        coords={
            "matched": text_coordinate(
                [f"{restored(a)} − {restored(b)}" for a, b in keys],
                "matched",
                "categories of matched prompts",
            )
        },
    )


def _pair_name(result: xr.Dataset, index: int) -> str:
    """A pair's name: the partner's and one's own, in one order, or the name that both carry."""
    own, other = str(result.prompt.values[index]), str(result.prompt_pair.values[index])
    return "\x1f".join(sorted((own, other))) if other in set(result.prompt.values.tolist()) else other


def _regression(result: xr.Dataset, settings: Any) -> xr.Dataset:
    """Transition depth against category, distance and confidence together."""
    if "subject_distance" not in result:
        return xr.Dataset()
    used = used_prompts(result)
    category = result.prompt_category.values[used]
    names = list(dict.fromkeys(category.tolist()))
    clean = result.clean_log_probability.values[used].astype(float)
    odds = clean - np.log(-np.expm1(np.minimum(clean, -1e-12)))
    columns = {
        f"{restored(name)} (against {restored(names[0])})": (category == name).astype(float)
        for name in names[1:]
    }
    columns |= {
        "distance from subject to end [tokens]": result.subject_distance.values[used].astype(float),
        "clean log-odds of the answer [nat]": odds,
    }
    terms, n = regress(result.transition_layer.values[used], columns, level=settings.level)
    adjusted = holm([term.p for term in terms])
    numbers = {
        "regression": ("value", "change of the transition depth per unit, the others held fixed", "block"),
        "regression_low": ("low", "lower end of the interval", "block"),
        "regression_high": ("high", "upper end of the interval", "block"),
        "regression_p": ("p", "two-sided p of no effect (HC3)", "1"),
    }
    return xr.Dataset(
        {
            name: quantity([getattr(term, field) for term in terms], "explanation", long_name, units)
            for name, (field, long_name, units) in numbers.items()
        }
        | {
            "regression_p_adjusted": quantity(adjusted, "explanation", "p by Holm's method over all terms"),
        }
        | {"regression_n": quantity(n, "", "prompts in the regression")},
        coords={"explanation": text_coordinate([t.name for t in terms], "explanation", "explanation")},
    )


# -- one token of the subject at a time, and other doses ------------------------------------------


def _one_by_one(result: xr.Dataset, stage: xr.Dataset, settings: Any) -> xr.Dataset:
    """Where each token of a subject hands over: to the subject's last token, and to the last token."""
    alone = _tracing.read_out(stage, "alone", settings).mean("sample")
    values = alone.transpose("subject_token", "place", "depth").values
    loss = _tracing.read_out(stage, "alone_noised", settings).mean("sample").values
    clean, _ = _tracing.ends_of(result, settings)
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
        "alone_recovery": quantity(scaled, "subject_token place depth", "recovery, one token noised alone"),
        "handover": quantity(
            handover, "subject_token handed_to", "depth at which a token of the subject hands over", "block"
        ),
        "tokens_to_subject_end": quantity(from_end, "subject_token", "tokens to the subject's last one"),
        "peak_depth": quantity(
            _peaks(scaled[:, 1], enough & (from_end > 0)),
            "subject_token",
            "depth at which the subject's last token restores most of what was lost by one before it",
            "block",
        ),
    }
    near = sorted(set(from_end.tolist()))
    for name, dims, long_name, units in (
        ("handover", "handed_to", "mean depth of the handover", "block"),
        ("peak_depth", "", "mean depth of that peak", "block"),
        ("alone_recovery", "place depth", "mean recovery, one token of the subject noised alone", "1"),
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


def _doses(result: xr.Dataset, stage: xr.Dataset, settings: Any) -> xr.Dataset:
    """At every dose: transitions, categories against each other, and how often a patch does harm."""
    at_doses = _tracing.read_out(stage, "dose", settings).mean("sample")
    rows = at_doses.transpose("prompt", "dose", "dose_row", "depth").values
    noised = _tracing.read_out(stage, "dose_noised", settings).mean("sample").values
    names = stage.prompt.values.tolist()
    whole = result.sel(prompt=names)
    clean, _ = _tracing.ends_of(whole, settings)
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
        "dose_transition": quantity(layers, "prompt dose", "transition depth at this dose", "block"),
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
        for name, what in (("difference", "block"), ("low", "block"), ("high", "block"), ("p_adjusted", "1")):
            values = [[getattr(contrast, name) for contrast in at_dose] for at_dose in contrasts]
            variables[f"dose_{name}"] = quantity(
                np.array(values), "dose dose_contrast", f"{name.replace('_', ' ')} of transition depths", what
            )
        coords["dose_contrast"] = text_coordinate(
            [f"{c.a} − {c.b}" for c in contrasts[0]], "dose_contrast", "pair of categories"
        )
    further = xr.Dataset(variables, coords={"prompt": stage.prompt, "dose": stage.dose} | coords)
    return xr.merge([stage, further], join="outer", compat="override").reindex(prompt=result.prompt)
