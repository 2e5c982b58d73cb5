"""Effects by class of token, categories and matched prompts against each other, and what else explains a crossover."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import named, text_coordinate
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments.causal_trace.conclude.averages import (
    indirect_by_class,
    mean_over_prompts,
    over_used,
)
from layerscope.experiments.causal_trace.conclude.readouts import ends_of, used_prompts
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.maths.bootstrap import bootstrap_difference
from layerscope.maths.max_statistic import compare_curves
from layerscope.maths.permutation import holm, least_p_of_signs, least_p_of_splits, sign_flip_p
from layerscope.maths.regression import regress
from layerscope.results.escaping import restored
from layerscope.results.schema import quantity


def effects(result: xr.Dataset, settings: Settings) -> xr.Dataset:
    """ROME's total effect, and the indirect effect of one state by class of token and depth."""
    used, over = used_prompts(result), over_used(result, settings)
    clean, noised = ends_of(result, settings)
    fall = "mean fall of the metric under corruption (ATE)"
    found = [over.mean(named((clean - noised)[used], "total_effect", fall, dims=("prompt",)))]
    if "token_class" in result.coords:
        indirect = indirect_by_class(result, result, "restored", "token", settings).isel(prompt=used)
        what = "mean change of the metric with one state patched (AIE)"
        found.append(over.mean(named(indirect, "indirect_effect", what)))
    return xr.merge(found)


def contrasts_over_depth(result: xr.Dataset, settings: Settings) -> xr.Dataset:
    """At which depths do categories differ in recovery at the last token? Largest statistic over depths."""
    used = used_prompts(result)
    category = result.prompt_category.values
    names = [name for name in dict.fromkeys(category[used].tolist()) if (used & (category == name)).sum() > 1]
    rows = result.prompt_recovery.sel(row="last token").to_numpy()
    pairs = list(combinations(names, 2))
    if not pairs:
        return xr.Dataset()
    groups = [(rows[used & (category == a)], rows[used & (category == b)]) for a, b in pairs]
    p = np.stack([np.minimum(compare_curves(*both, seed=settings.seed).p * len(pairs), 1) for both in groups])
    of_sampling: dict[str, Any] = {
        "seed": settings.seed,
        "level": settings.level,
        "resamples": settings.resamples,
    }
    differences = stacked([bootstrap_difference(*both, **of_sampling) for both in groups])
    # Of all deals only the one seen reaches it; 1999 are drawn.
    least = [min(1.0, len(pairs) * max(1 / 2000, least_p_of_splits(len(a), len(b)))) for a, b in groups]
    return xr.Dataset(
        interval_variables(
            "depth_difference", differences, "category_pair depth", "difference in recovery at the last token"
        )
        | {
            "depth_p": quantity(
                p, "category_pair depth", "p by permutation, adjusted for all depths and pairs"
            ),
            "depth_difference_least_p": quantity(
                least, "category_pair", "smallest adjusted p that was possible"
            ),
        },
        coords={
            "category_pair": text_coordinate(
                [f"{restored(a)} − {restored(b)}" for a, b in pairs], "category_pair", "pair of categories"
            )
        },
    )


def matched_pairs(result: xr.Dataset, settings: Settings) -> xr.Dataset:
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
            "difference in crossover depth within matched pairs",
            "layer",
        )
        | {
            "paired_p": quantity(
                holm([p for p, _ in tests]), "matched", "p by flipping signs of pairs, Holm over comparisons"
            ),
            "paired_difference_least_p": quantity(
                [min(1.0, len(tests) * least_p_of_signs(n)) for _, n in tests],
                "matched",
                "smallest adjusted p that was possible",
            ),
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


def regression(result: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Crossover depth against category, distance and confidence together."""
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
        "regression": ("value", "change of the crossover depth per unit, the others held fixed", "layer"),
        "regression_low": ("low", "lower end of the interval", "layer"),
        "regression_high": ("high", "upper end of the interval", "layer"),
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
