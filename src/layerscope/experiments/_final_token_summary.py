"""What the last token attends to, once every prompt was read: rows, categories, heads, and the spike."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Earlier
from layerscope.evidence import finding, groups_along, head_name, strongest, text_coordinate
from layerscope.evidence.quantities import contrast_variables, interval_variables, stacked
from layerscope.maths.bootstrap import bootstrap_mean, bootstrap_statistic
from layerscope.maths.correlation import rank_correlation
from layerscope.maths.max_statistic import compare_curves
from layerscope.maths.permutation import pairwise_contrasts
from layerscope.maths.ratios import known_mean
from layerscope.plots.numbers import number
from layerscope.results.schema import quantity, write_json
from layerscope.results.words import restored

ROWS = ("first token", "noised tokens", "last token", "other tokens")
_SMALLEST = 1e-6  # of a share, before its logarithm: float32 says no more
_ROUNDING = 1e-4


def conclude(stages: Earlier, settings: Any) -> xr.Dataset:
    """The whole result from what every prompt gave."""
    result = stages["attention"]
    used = result.left_out_because.values == ""
    rows, uniform = _rows(result)
    result = result.assign(
        prompt_attention=quantity(
            rows.astype(np.float32), "prompt weighting row layer head", "attention of the last token, by row"
        ),
        uniform_attention=quantity(uniform, "prompt row", "share of uniform attention"),
    ).assign_coords(row=text_coordinate(ROWS, "row", "tokens attended to"))
    spike = np.where(used, _spikes(rows[:, 0, 1], uniform[:, 1]), np.nan)
    transition = _transitions(stages["trace"], result)
    result = result.assign(
        spike_layer=quantity(
            spike, "prompt", "layer in which the last token attends most to the corrupted tokens", "block"
        ),
        transition_layer=quantity(
            transition, "prompt", "crossover depth: where the last token takes over", "block"
        ),
    )
    result = xr.merge(
        [result, _averages(result, rows, used, spike, settings)], join="outer", compat="no_conflicts"
    )
    result = result.assign(_beside(result, spike, np.where(used, transition, np.nan), settings))
    return write_json(result, cautions=_cautions(result, used, settings))


def _rows(result: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Shares of each row [prompt weighting row layer head], and what uniform attention gives it [prompt row]."""
    tokens = groups_along(result, "token_prompt")
    shares, uniform = [], []
    for name in result.prompt.values:
        own = tokens[str(name)]
        noised = result.noised.values[own]
        masks = [np.zeros(len(own), dtype=bool) for _ in range(3)]
        masks[0][0], masks[1][:], masks[2][-1] = True, noised, True
        masks.append(~(masks[0] | masks[1] | masks[2]))
        values = result.attention.values[own].astype(np.float64)
        shares.append(np.stack([values[mask].sum(axis=0) for mask in masks], axis=1))
        uniform.append([mask.mean() for mask in masks])
    return np.stack(shares), np.array(uniform)


def _spikes(noised: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Layer of the largest share on the noised tokens, mean over heads [prompt layer head]; NaN for none.

    Where no layer gives them more than uniform attention would, there is no spike.
    """
    mean = known_mean(noised)
    largest = np.nanmax(mean, axis=1)
    return np.where(largest > uniform * (1 + _ROUNDING), np.nanargmax(mean, axis=1), np.nan)


def _transitions(trace: xr.Dataset, result: xr.Dataset) -> np.ndarray:
    if not trace.sizes.get("prompt"):
        return np.full(result.sizes["prompt"], np.nan)
    return np.asarray(trace.transition_layer.reindex(prompt=result.prompt.values).values, dtype=float)


def _averages(
    result: xr.Dataset, rows: np.ndarray, used: np.ndarray, spike: np.ndarray, settings: Any
) -> xr.Dataset:
    names = list(dict.fromkeys(result.prompt_category.values.tolist()))
    groups = [used & (result.prompt_category.values == name) for name in names]
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)
    over_heads = known_mean(rows)
    uniform = result.uniform_attention.values
    by_head = np.stack([rows[group].mean(axis=0) if group.any() else rows[0] * np.nan for group in groups])
    averages = xr.Dataset(
        interval_variables(
            "category_attention",
            stacked([mean(over_heads[group]) for group in groups]),
            "category weighting row layer",
            "attention of the last token, mean over heads and prompts",
        )
        | interval_variables(
            "overall_attention",
            mean(over_heads[used]),
            "weighting row layer",
            "attention of the last token, mean over heads and prompts",
        )
        | {
            "head_attention": quantity(
                by_head, "category weighting row layer head", "attention of the last token, mean over prompts"
            ),
            "uniform_category": quantity(
                stacked([mean(uniform[group]) for group in groups]).value,
                "category row",
                "share of uniform attention",
            ),
            "uniform_overall": quantity(mean(uniform[used]).value, "row", "share of uniform attention"),
        }
        | interval_variables(
            "mean_spike",
            stacked([mean(spike[group]) for group in groups]),
            "category",
            "mean layer of the peak on the corrupted tokens",
            "block",
        ),
        coords={
            "category": text_coordinate([restored(name) for name in names], "category", "category of prompts")
        },
    )
    contrasts = pairwise_contrasts(
        spike[used],
        [restored(name) for name in result.prompt_category.values[used].tolist()],
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
    )
    spikes = contrast_variables(contrasts, "layer of the peak", "block")
    heads = _heads_apart(
        rows, uniform, [(restored(name), group) for name, group in zip(names, groups, strict=True)], settings
    )
    return xr.merge([averages, spikes, heads], join="outer", compat="no_conflicts")


def _heads_apart(
    rows: np.ndarray, uniform: np.ndarray, groups: list[tuple[str, np.ndarray]], settings: Any
) -> xr.Dataset:
    """Every pair of categories compared in every row, layer and head, on the logarithm of the share.

    Twice: as it is, and over what uniform attention gives these tokens. A head that spreads over all tokens gives
    a longer subject more, and one that looks at nothing but the subject gives it no more than all: only a
    difference that survives both, in one direction, is one between categories. So p is the larger of the two.
    """
    logs = np.log(np.maximum(rows[:, 0, :3], _SMALLEST))
    over_uniform = logs - np.log(np.maximum(uniform[:, :3], _SMALLEST))[..., None, None]
    pairs = [(a, b) for a, b in combinations([(n, g) for n, g in groups if g.any()], 2)]
    differences, p = [], []
    for (_, first), (_, second) in pairs:
        both = [
            compare_curves(one[first], one[second], seed=settings.seed, permutations=settings.permutations)
            for one in (logs, over_uniform)
        ]
        agree = np.sign(both[0].difference) == np.sign(both[1].difference)
        differences.append(both[0].difference)
        larger = np.maximum(both[0].p, both[1].p) * len(pairs)
        p.append(np.where(agree | np.isnan(larger), np.minimum(larger, 1), 1.0))
    shape = (len(pairs), *logs.shape[1:])
    return xr.Dataset(
        {
            "head_difference": quantity(
                np.array(differences).reshape(shape),
                "contrast kept_row layer head",
                "difference in the logarithm of the last token's attention",
                "nat",
            ),
            "head_p_adjusted": quantity(
                np.array(p).reshape(shape),
                "contrast kept_row layer head",
                "p by the largest statistic over rows, layers and heads, times the number of pairs; the larger of "
                "that of the share and that of the share over uniform attention's",
            ),
        },
        coords={
            "contrast": text_coordinate(
                [f"{a} − {b}" for (a, _), (b, _) in pairs], "contrast", "pair of categories"
            ),
            "kept_row": text_coordinate(ROWS[:3], "kept_row", "tokens attended to"),
        },
    )


def _beside(result: xr.Dataset, spike: np.ndarray, transition: np.ndarray, settings: Any) -> dict[str, Any]:
    """The spike beside the transition: block l changes depth l to l + 1, so it stands at l + 0.5."""
    apart = transition - (spike + 0.5)
    both = np.isfinite(apart)
    what = "crossover depth less the middle of the peak's layer"
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)
    of_category = [result.prompt_category.values == category for category in result.category.values]
    variables: dict[str, Any] = {
        "prompt_transition_less_spike": quantity(apart, "prompt", what, "block"),
        "prompts_crossing_in_the_spike": quantity(
            float((np.abs(apart[both]) <= 0.5).mean()) if both.any() else np.nan,
            "",
            "share of prompts whose crossover lies within the peak's layer",
        ),
    }
    variables |= interval_variables(
        "transition_less_spike", mean(apart), "", f"{what}, mean over prompts", "block"
    ) | interval_variables(
        "category_transition_less_spike",
        stacked([mean(apart[own]) for own in of_category]),
        "category",
        f"{what}, mean over prompts",
        "block",
    )
    pairs = np.stack([spike[both], transition[both]], axis=1)
    if len(pairs) < 4:
        pairs = np.full((1, 2), np.nan)
    rank = bootstrap_statistic(
        pairs,
        lambda rows: rank_correlation(*rows.T),
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
    )
    return variables | interval_variables(
        "spike_transition_correlation", rank, "", "rank correlation of spike and transition over prompts"
    )


def _cautions(result: xr.Dataset, used: np.ndarray, settings: Any) -> list[str]:
    cautions = []
    if not used.any():
        cautions.append("Every prompt was left out: there is nothing to average.")
    if settings.trace and not np.isfinite(result.transition_layer.values[used]).any():
        cautions.append("The trace that was given has a transition for none of the prompts that were kept.")
    if "value itself" in str(result.value_source.values):
        cautions.append(
            "Where no output projection was found, value norms are those of the values themselves."
        )
    return cautions


# -- sentences --------------------------------------------------------------------------------------


def claims(result: xr.Dataset) -> list[Claim]:
    """Where the last token looks, which heads tell categories apart, and where the spike stands."""
    return [*_first(result), *_spike_claims(result), *_head_claims(result), *_trace_claims(result)]


def _first(result: xr.Dataset) -> Iterator[Claim]:
    values = result.overall_attention.sel(weighting="attention", row="first token")
    if not np.isfinite(values.values).any():
        yield Claim(text="no prompt is left to average over", select={"variable": "left_out_because"})
        return
    cell: dict[str, Any] = {"weighting": "attention", "row": "first token"}
    most = strongest(result, "overall_attention", "layer", unit="share", units="prompts", **cell)
    yield most.claim(
        f"the last token gives the first one most attention in layer {most.select['layer']}: {most.estimate}",
        caveat=f"mean over heads and {most.n[0]} prompts; uniform attention "
        f"{float(result.uniform_overall.sel(row='first token')):.0%}",
    )


def _spike_claims(result: xr.Dataset) -> Iterator[Claim]:
    for name in map(str, result.category.values):
        layer = finding(result, "mean_spike", unit="1", units="prompts", category=name)
        if not layer.known:
            yield layer.claim(
                "",
                nothing=f"layer in which attention to the corrupted tokens peaks, for {restored(name)}",
                unknown="no prompt has such a peak",
            )
            continue
        yield layer.claim(
            f"the last token's attention to the corrupted tokens peaks in layer {layer.estimate} for {restored(name)}",
            caveat=f"mean over {layer.n[0]} prompts of the layer with the largest mean over heads",
        )


def _head_claims(result: xr.Dataset) -> Iterator[Claim]:
    for contrast in map(str, result.contrast.values):
        if contrast not in result.head_p_adjusted.contrast.values:
            continue
        cell: dict[str, Any] = {"contrast": contrast, "kept_row": "noised tokens"}
        if not np.isfinite(result.head_p_adjusted.sel(cell)).any():
            continue
        most = strongest(
            result,
            "head_difference",
            ("layer", "head"),
            by=np.abs,
            p="head_p_adjusted",
            unit="1",
            units="prompts",
            **cell,
        )
        first, _, second = restored(contrast).partition(" − ")
        head = head_name(most.select["layer"], most.select["head"])
        yield most.claim(
            f"{head} gives the corrupted tokens {most.which('more', 'less')} attention for {first} than for "
            f"{second}, by a "
            f"factor of {_factor(most.value)}",
            nothing=f"difference between {first} and {second} in any head's attention to the corrupted tokens",
            caveat=f"value: logarithm of the factor; significant in {most.clear} of {most.family} heads; corrected for "
            "all heads, layers, rows and pairs, as a share and over what uniform attention gives; lengths and "
            "distances are not matched unless the set says so",
        )


def _factor(difference: float) -> str:
    factor = float(np.exp(abs(difference)))
    return number(factor) if factor < 100 else f"{factor:,.0f}"


def _trace_claims(result: xr.Dataset) -> Iterator[Claim]:
    n = int(result.transition_less_spike_n)
    if not n:
        return
    gap = finding(result, "transition_less_spike", unit="layer", units="prompts")
    rank = finding(result, "spike_transition_correlation", unit="1", units="prompts")
    within = float(result.prompts_crossing_in_the_spike)
    categories = ", ".join(
        f"{restored(str(name))} {gap.other(float(result.category_transition_less_spike.sel(category=name)))}"
        for name in result.category.values
    )
    yield gap.claim(
        f"crossover comes {gap.size} {gap.which('later', 'earlier')} than the middle of the layer in which attention "
        "to "
        f"the corrupted tokens peaks, and within that layer for {within:.0%} of the prompts",
        nothing="difference in depth between crossover and the peak of attention to the corrupted tokens",
        caveat=f"mean over {n} prompts, by category {categories}; a layer reaches half a layer to either side; rank "
        f"correlation over prompts {rank.estimate} ({rank.interval})",
    )
