"""What the last token attends to, once every prompt was read: rows, categories, heads, and the peak."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import Over, along, groups_along, measure, named, side_by_side, text_coordinate
from layerscope.evidence.quantities import interval_variables
from layerscope.experiments.final_token_attention.measure import ATTENTION
from layerscope.experiments.final_token_attention.settings import Settings
from layerscope.maths.bootstrap import bootstrap_difference, bootstrap_statistic
from layerscope.maths.correlation import rank_correlation
from layerscope.maths.max_statistic import compare_curves
from layerscope.maths.permutation import least_p_of_splits
from layerscope.maths.ratios import known_mean
from layerscope.results.escaping import restored
from layerscope.results.schema import quantity, write_json

FIRST, CORRUPTED, LAST, OTHERS = ROWS = ("first token", "noised tokens", "last token", "other tokens")
"""Rows as results name them; `SAID` says them."""

SAID = {
    FIRST: "the first token",
    CORRUPTED: "the corrupted tokens",
    LAST: "itself",
    OTHERS: "the other tokens",
}

_SMALLEST = 1e-6  # of a share, before its logarithm: float32 says no more
_ROUNDING = 1e-4
_FEWEST_FOR_RANKS = 4
_HALF_A_LAYER = 0.5


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Shares by row and category, the heads in which categories differ, and the peak beside a saved trace."""
    measured = stages["attention"]
    used = measured.left_out_because.values == ""
    rows, uniform = _rows(measured)
    peak = _peaks(rows.sel(weighting=ATTENTION, row=CORRUPTED), uniform.sel(row=CORRUPTED)).where(used)
    crossover = _crossovers(stages["trace"], measured)
    given = {
        restored(str(name)): np.flatnonzero(used & (measured.prompt_category.values == name))
        for name in dict.fromkeys(measured.prompt_category.values.tolist())
    }
    each = xr.merge([rows.astype(np.float32), uniform, peak, crossover])
    result = measured.merge(each, compat="no_conflicts").assign_coords(
        row=text_coordinate(ROWS, "row", "tokens attended to")
    )
    whole = Over(result.isel(prompt=used), settings, rows="prompt")
    parts = [
        result,
        _averages(result, rows, uniform, used, given, settings),
        whole.contrasts(
            named(peak[used], "peak", "layer of the peak", "layer"), result.prompt_category.values[used]
        ),
        _heads_apart(rows.sel(weighting=ATTENTION), uniform, given, settings),
        _beside_trace(result, peak, crossover.where(used), settings),
    ]
    result = xr.merge(parts, join="outer", compat="no_conflicts", combine_attrs="override")
    return write_json(result, cautions=_cautions(result, used, settings))


# -- of each prompt ----------------------------------------------------------------------------------


def _rows(measured: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Shares of each row [prompt weighting row layer head], and what uniform attention gives it [prompt row]."""
    tokens = groups_along(measured, "token_prompt")
    shares, uniform = [], []
    for name in measured.prompt.values:
        own = tokens[str(name)]
        masks = _masks(measured.noised.values[own])
        values = measured.attention.values[own].astype(np.float64)
        shares.append(np.stack([values[mask].sum(axis=0) for mask in masks], axis=1))
        uniform.append([mask.mean() for mask in masks])
    there: dict[str, Any] = {name: measured[name].variable for name in ("prompt", "weighting", "layer")}
    there["row"] = list(ROWS)
    found = xr.DataArray(np.stack(shares), dims=("prompt", "weighting", "row", "layer", "head"))
    alike = xr.DataArray(np.array(uniform), dims=("prompt", "row"))
    return (
        named(found.assign_coords(there), "prompt_attention", "attention of the last token, by row"),
        named(
            alike.assign_coords({name: there[name] for name in ("prompt", "row")}),
            "uniform_attention",
            "share of uniform attention",
        ),
    )


def _masks(corrupted: np.ndarray) -> list[np.ndarray]:
    """Which tokens of a prompt belong to each row."""
    first, last = (np.zeros(len(corrupted), dtype=bool) for _ in range(2))
    first[0], last[-1] = True, True
    return [first, corrupted, last, ~(first | corrupted | last)]


def _peaks(corrupted: xr.DataArray, uniform: xr.DataArray) -> xr.DataArray:
    """Layer of the largest share on the corrupted tokens, mean over heads [prompt]; NaN for none.

    Where no layer gives them more than uniform attention would, there is no peak.
    """
    mean = along("head", known_mean, corrupted)
    layer = mean.fillna(-1).argmax("layer").where(mean.max("layer") > uniform * (1 + _ROUNDING))
    return named(
        layer, "spike_layer", "layer in which the last token attends most to the corrupted tokens", "layer"
    ).drop_vars(("weighting", "row"), errors="ignore")


def _crossovers(trace: xr.Dataset, measured: xr.Dataset) -> xr.DataArray:
    what = ("transition_layer", "crossover depth: where the last token takes over", "layer")
    if trace.sizes.get("prompt"):
        return named(trace.transition_layer.reindex(prompt=measured.prompt.values).astype(float), *what)
    return named(xr.full_like(measured.prompt, np.nan, dtype=float), *what)


# -- of categories -----------------------------------------------------------------------------------


def _averages(
    result: xr.Dataset,
    rows: xr.DataArray,
    uniform: xr.DataArray,
    used: np.ndarray,
    given: Mapping[str, np.ndarray],
    settings: Settings,
) -> xr.Dataset:
    """Means over the prompts of each category, and over all that count."""
    long_name = "attention of the last token, mean over heads and prompts"
    over_heads = along("head", known_mean, rows)

    def mean(values: xr.DataArray, chosen: np.ndarray) -> xr.Dataset:
        return Over(result.isel(prompt=chosen), settings, rows="prompt").mean(values.isel(prompt=chosen))

    def of_category(chosen: np.ndarray) -> xr.Dataset:
        by_head = rows.isel(prompt=chosen).mean("prompt", skipna=False) if len(chosen) else rows[0] * np.nan
        what = "attention of the last token, mean over prompts"
        alike = mean(named(uniform, "uniform_category"), chosen).uniform_category
        peak = named(result.spike_layer, "mean_spike", "mean layer of the peak on the corrupted tokens")
        return xr.merge(
            [
                mean(named(over_heads, "category_attention", long_name), chosen),
                named(by_head.drop_vars("prompt", errors="ignore"), "head_attention", what),
                alike,
                mean(peak, chosen),
            ]
        )

    every = np.flatnonzero(used)
    over = Over(result.isel(prompt=used), settings, rows="prompt")
    cell = {"weighting": ATTENTION, "row": CORRUPTED}
    excess = (rows.sel(cell, drop=True) - uniform.sel(row=CORRUPTED, drop=True))[used]
    return xr.merge(
        [
            side_by_side({n: of_category(c) for n, c in given.items()}, "category", "category of prompts"),
            over.mean(named(over_heads[used], "overall_attention", long_name), together="layer", draws=True),
            over.mean(
                named(
                    excess, "head_subject_excess", "attention of the last token to the subject, less uniform"
                ),
                together=("layer", "head"),
            ),
            mean(named(uniform, "uniform_overall"), every).uniform_overall,
        ]
    )


def _heads_apart(
    rows: xr.DataArray, uniform: xr.DataArray, given: Mapping[str, np.ndarray], settings: Settings
) -> xr.Dataset:
    """Every pair of categories compared in every row, layer and head, on the logarithm of the share.

    Twice: as it is, and over what uniform attention gives these tokens. A head that spreads over all tokens gives
    a longer subject more, and one that looks at nothing but the subject gives it no more than all: only a
    difference that survives both, in one direction, is one between categories. So p is the larger of the two.

    Args:
        rows: shares [prompt row layer head].
        uniform: what uniform attention gives [prompt row].
        given: prompts that count, by category.
    """
    logs = np.log(np.maximum(rows.values[:, :3], _SMALLEST))
    over_uniform = logs - np.log(np.maximum(uniform.values[:, :3], _SMALLEST))[..., None, None]
    pairs = list(combinations([name for name, chosen in given.items() if len(chosen)], 2))
    columns: dict[str, list[np.ndarray]] = {"": [], "_low": [], "_high": [], "p": []}
    for first, second in ((given[a], given[b]) for a, b in pairs):
        both = [
            compare_curves(one[first], one[second], seed=settings.seed, permutations=settings.permutations)
            for one in (logs, over_uniform)
        ]
        interval = bootstrap_difference(
            logs[first], logs[second], seed=settings.seed, level=settings.level, resamples=settings.resamples
        )
        agree = np.sign(both[0].difference) == np.sign(both[1].difference)
        larger = np.maximum(both[0].p, both[1].p) * len(pairs)
        columns[""].append(both[0].difference)
        columns["_low"].append(interval.low)
        columns["_high"].append(interval.high)
        columns["p"].append(np.where(agree | np.isnan(larger), np.minimum(larger, 1), 1.0))
    shape, cells = (len(pairs), *logs.shape[1:]), "contrast kept_row layer head"
    what = "difference in the logarithm of the last token's attention"
    ends = {"": what, "_low": f"{what}, lower end", "_high": f"{what}, upper end"}
    variables = {
        f"head_difference{end}": quantity(np.array(columns[end]).reshape(shape), cells, says, "nat")
        for end, says in ends.items()
    }
    variables["head_p_adjusted"] = quantity(
        np.array(columns["p"]).reshape(shape),
        cells,
        "p by the largest statistic over rows, layers and heads, times the number of pairs; the larger of "
        "that of the share and that of the share over uniform attention's",
    )
    sizes = [(len(given[a]), len(given[b])) for a, b in pairs]
    return xr.Dataset(
        variables | _least(sizes, settings.permutations),
        coords={
            "contrast": text_coordinate([f"{a} − {b}" for a, b in pairs], "contrast", "pair of categories"),
            "kept_row": text_coordinate(ROWS[:3], "kept_row", "tokens attended to"),
        },
    )


def _least(sizes: list[tuple[int, int]], permutations: int) -> dict[str, xr.Variable]:
    """The smallest p that was possible for each pair of categories, and its numbers of prompts."""
    least = np.array([least_p_of_splits(*both, resamples=permutations) for both in sizes], dtype=float)
    first, second = np.array(sizes, dtype=np.int64).reshape(-1, 2).T
    return {
        "head_difference_least_p": quantity(least, "contrast", "smallest p that was possible"),
        "head_difference_least_p_adjusted": quantity(
            np.minimum(1, least * len(sizes)), "contrast", "smallest adjusted p that was possible"
        ),
        "head_difference_n_first": quantity(first, "contrast", "prompts of the first category"),
        "head_difference_n_second": quantity(second, "contrast", "prompts of the second category"),
    }


# -- beside a saved trace ----------------------------------------------------------------------------


def _beside_trace(
    result: xr.Dataset, peak: xr.DataArray, crossover: xr.DataArray, settings: Settings
) -> xr.Dataset:
    """The peak beside the crossover: layer l changes depth l to l + 1, so it stands at l + 0.5."""
    what = "crossover depth less the middle of the peak's layer"
    apart = named(crossover - (peak + _HALF_A_LAYER), "prompt_transition_less_spike", what, "layer")
    mean = f"{what}, mean over prompts"
    within = named(
        (abs(apart) <= _HALF_A_LAYER).where(apart.notnull()),
        "prompts_crossing_in_the_spike",
        "share of prompts whose crossover lies within the peak's layer",
    )
    over, parts = Over(result, settings, rows="prompt"), {}
    for name in map(str, dict.fromkeys(result.prompt_category.values.tolist())):
        own = np.flatnonzero(result.prompt_category.values == name)
        of_category = named(apart[own], "category_transition_less_spike", mean)
        parts[restored(name)] = Over(result.isel(prompt=own), settings, rows="prompt").mean(of_category)
    return xr.merge(
        [
            apart.to_dataset(),
            over.mean(within),
            over.mean(named(apart, "transition_less_spike", mean)),
            side_by_side(parts, "category", "category of prompts"),
            _ranks(peak, crossover, settings),
        ]
    )


def _ranks(peak: xr.DataArray, crossover: xr.DataArray, settings: Settings) -> xr.Dataset:
    pairs = np.stack([peak.values, crossover.values], axis=1)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) < _FEWEST_FOR_RANKS:
        pairs = np.full((1, 2), np.nan)
    rank = bootstrap_statistic(
        pairs,
        lambda rows: rank_correlation(*rows.T),
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
    )
    return xr.Dataset(
        interval_variables(
            "spike_transition_correlation", rank, "", "rank correlation of peak and crossover over prompts"
        )
    )


def _cautions(result: xr.Dataset, used: np.ndarray, settings: Settings) -> list[str]:
    cautions = []
    if not used.any():
        cautions.append("Every prompt was left out: there is nothing to average.")
    if settings.trace and not np.isfinite(result.transition_layer.values[used]).any():
        cautions.append("The trace that was given has a crossover for none of the prompts that were kept.")
    if "value itself" in str(result.value_source.values):
        cautions.append(
            "Where no output projection was found, value norms are those of the values themselves."
        )
    return cautions


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """The last token's attention to the corrupted tokens, all prompts together."""
    null = result.uniform_overall.sel(row=CORRUPTED, drop=True)
    return {
        "attention_to_corrupted": measure(
            result,
            "overall_attention",
            label="last-token attention to the subject",
            sense="the last token attends much to the tokens that a causal trace corrupts",
            questions="attention",
            null=null.expand_dims(layer=result.layer),
            weighting=ATTENTION,
            row=CORRUPTED,
        )
    }
