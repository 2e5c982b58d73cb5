"""From the path of every token to curves with intervals: what `hidden_states` concludes."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import groups_along, text_coordinate
from layerscope.evidence.groups import (
    PASSAGES,
    Group,
    groups_of_prompts,
    groups_of_tokens,
    intervals,
    passages_left_out,
    per_unit,
)
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments import _geometry
from layerscope.experiments._state_phases import phase_variables
from layerscope.maths.alignment import alignment
from layerscope.maths.bootstrap import Interval, bootstrap_mean
from layerscope.maths.max_statistic import compare_curves
from layerscope.maths.path import growth_rate
from layerscope.results.schema import quantity, write_json
from layerscope.results.words import stored

COMPARED = ("norm", "relative_step", "turn", "successive_cosine", "centred_cosine", "step_direction",
            "attention_share", "attention_direction", "mlp_direction")  # fmt: skip
"""Quantities in which categories of prompts are compared, all layers of all of them as one family."""

NAMES = (*_geometry.OVER_DEPTH, *_geometry.OVER_LAYERS)
LAYER_NAMES = _geometry.OVER_LAYERS | {"growth": "growth of the norm at each block"}


def conclude(
    passages: xr.Dataset, prompts: xr.Dataset, massive: np.ndarray, centre: xr.Dataset, settings: Any
) -> xr.Dataset:
    """Everything that is said of the samples, beside the samples."""
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)
    ends = _growing_depths(settings, centre.sizes["depth"] - 1)
    samples = xr.merge([passages, prompts], join="outer", compat="override", combine_attrs="override")
    variables: dict[str, Any] = {
        "massive_dimension": quantity(massive, "rank", "massive dimension, by share of the squared norm"),
        "massive_share_expected": quantity(
            _expected_share(centre.sizes["width"], settings.massive, settings.seed),
            "",
            "share of the squared norm in the largest entries of a random state",
        ),
    }
    ranks = {"long_name": "rank, from 0"}
    coords: dict[str, Any] = {"rank": xr.Variable(("rank",), np.arange(len(massive)), ranks)}
    groups: dict[str, Group] = {}
    if passages.sizes:
        groups |= _groups_of_tokens(passages, settings)
        variables |= _pairs(passages, mean) | _aligned(passages, mean)
        variables |= phase_variables(groups[PASSAGES], settings, coords)
        names = [str(name) for name in passages.passage.values]
        reasons = passages_left_out(passages, names, settings.first_position + 1)
        variables["left_out_because"] = quantity(reasons, "passage", "why the passage is left out, or empty")
    if prompts.sizes:
        of_prompts, rows, reasons = _groups_of_prompts(prompts, settings)
        groups |= of_prompts
        variables |= _contrasts(prompts, rows, settings, coords)
        variables["prompt_left_out_because"] = quantity(
            reasons, "prompt", "why the prompt is left out, or empty"
        )
    variables |= _curves(groups, mean, ends, coords)
    result = samples.assign(variables).assign_coords(coords)
    result = result.assign_attrs(growth_first=ends[0], growth_last=ends[1])
    return write_json(result, cautions=_cautions(result))


def curve(result: xr.Dataset, group: str, name: str) -> xr.Dataset:
    """`value`, `low`, `high` and `n` of one quantity of one group over layer or depth."""
    of = "depth_curve" if name in _geometry.OVER_DEPTH else "layer_curve"
    which = {"group": stored(group), "over_depth" if of == "depth_curve" else "over_layers": name}
    columns = {"value": of, "low": f"{of}_low", "high": f"{of}_high", "n": f"{of}_n"}
    found = xr.Dataset({to: result[name].sel(which).reset_coords(drop=True) for to, name in columns.items()})
    found["value"].attrs = {"long_name": LAYER_NAMES.get(name) or _geometry.long_name(name), "units": "1"}
    return found


def _growing_depths(settings: Any, n_layers: int) -> tuple[int, int]:
    """First and last depth of the growth rate; at least two depths are kept."""
    ends = min(settings.leave_out_ends, (n_layers - 1) // 2)
    return ends, n_layers - ends


def _expected_share(width: int, count: int, seed: int) -> float:
    squares = np.random.default_rng(seed).standard_normal((500, width)) ** 2
    largest = np.sort(squares, axis=1)[:, -count:].sum(axis=1)
    return float((largest / squares.sum(axis=1)).mean())


# -- groups: what is averaged over, one value for each unit ------------------------------------------


def _groups_of_tokens(states: xr.Dataset, settings: Any) -> dict[str, Group]:
    values = {name: _transformed(name, states[name].values) for name in NAMES}
    return groups_of_tokens(states, values, first_position=settings.first_position, first_apart=True)


def _groups_of_prompts(
    prompts: xr.Dataset, settings: Any
) -> tuple[dict[str, Group], dict[str, np.ndarray], np.ndarray]:
    """All prompts that count and each category of them; their rows; why others are left out."""
    reasons = np.array([_why_not(int(rank), settings) for rank in prompts.answer_rank.values])
    values = {name: _transformed(name, prompts[f"prompt_{name}"].values) for name in NAMES}
    groups, rows = groups_of_prompts(values, prompts.prompt_category.values, reasons == "")
    return groups, rows, reasons


def _why_not(rank: int, settings: Any) -> str:
    if rank == 0:
        return "longer than the model can read"
    return f"the answer's rank is {rank}" if rank > 1 and not settings.wrong else ""


def _curves(
    groups: dict[str, Group], mean: Any, ends: tuple[int, int], coords: dict[str, Any]
) -> dict[str, Any]:
    """Every quantity of every group with its interval, and the rate of growth."""
    depth_curves, layer_curves, rates = [], [], []
    for group in groups.values():
        growth = {
            "growth": np.diff(group["norm"], axis=1),
            "rate": growth_rate(np.exp(group["norm"]), first=ends[0], last=ends[1])[:, None],
        }
        found = intervals(group | growth, mean)
        depth_curves.append(stacked([_back(name, found[name]) for name in _geometry.OVER_DEPTH]))
        layer_curves.append(stacked([_back(name, found[name]) for name in LAYER_NAMES]))
        rates.append(_back("rate", found["rate"]))
    coords["group"] = text_coordinate(list(groups), "group", "tokens or prompts that are averaged over")
    coords["over_depth"] = text_coordinate(list(_geometry.OVER_DEPTH), "over_depth", "quantity over depth")
    coords["over_layers"] = text_coordinate(list(LAYER_NAMES), "over_layers", "quantity over layers")
    return (
        interval_variables(
            "depth_curve",
            stacked(depth_curves),
            "group over_depth depth",
            "mean over passages or prompts",
        )
        | interval_variables(
            "layer_curve",
            stacked(layer_curves),
            "group over_layers layer",
            "mean over passages or prompts",
        )
        | interval_variables(
            "growth_rates", _only(stacked(rates)), "group", "growth of the norm per block, by group"
        )
        | interval_variables("growth_rate", _only(rates[0]), "", "growth of the norm per block")
    )


def _only(interval: Interval) -> Interval:
    """Without its last axis, which has one place."""
    return Interval(interval.value[..., 0], interval.low[..., 0], interval.high[..., 0], interval.n[..., 0])


def _transformed(name: str, values: np.ndarray) -> np.ndarray:
    """Logarithms of what is a length or a ratio; all in float64."""
    values = values.astype(np.float64)
    return np.log(np.where(values > 0, values, np.nan)) if name in _geometry.RATIOS else values


def _back(name: str, interval: Interval) -> Interval:
    """From logarithms: a length as it is, growth as what is added."""
    if name in ("growth", "rate"):
        back: Any = np.expm1
    elif name in _geometry.RATIOS:
        back = np.exp
    else:
        return interval
    return Interval(back(interval.value), back(interval.low), back(interval.high), interval.n)


def _pairs(states: xr.Dataset, mean: Any) -> dict[str, Any]:
    groups = groups_along(states, "sampled_passage").values()
    variables: dict[str, Any] = {}
    for name in ("pair_cosine", "pair_cosine_centred") if groups else ():
        per_passage = per_unit(states[name].values.astype(np.float64), groups)
        variables |= interval_variables(
            f"mean_{name}",
            mean(per_passage),
            "depth other_depth",
            f"{states[name].attrs['long_name']}, mean over passages",
        )
    return variables


def _aligned(states: xr.Dataset, mean: Any) -> dict[str, Any]:
    """CKA from the passages' dependences, averaged before the ratio; its interval by resampling passages."""
    from layerscope.maths.bootstrap import bootstrap_statistic

    known = states.dependence.values[~np.isnan(states.dependence.values).any(axis=(1, 2))]
    if not len(known):
        return {}
    scaled = known / np.trace(known, axis1=1, axis2=2).mean()  # short numbers; a ratio does not mind
    interval = bootstrap_statistic(
        scaled,
        lambda rows: alignment(rows.mean(axis=0)),
        seed=mean.keywords["seed"],
        level=mean.keywords["level"],
        resamples=min(1000, mean.keywords["resamples"]),
    )
    return interval_variables(
        "alignment", interval, "depth other_depth", "centred kernel alignment of two depths"
    )


def _contrasts(
    prompts: xr.Dataset, rows: dict[str, np.ndarray], settings: Any, coords: dict[str, Any]
) -> dict[str, Any]:
    """Pairs of categories: every quantity at every layer, one family for each pair, times the pairs."""
    pairs = list(combinations(rows, 2))
    if not pairs:
        return {}
    cells = np.stack([_by_layer(prompts, name) for name in COMPARED], axis=1)  # [prompt quantity layer]
    compared = [compare_curves(cells[rows[a]], cells[rows[b]], seed=settings.seed) for a, b in pairs]
    p = np.minimum(1, np.stack([one.p for one in compared]) * len(pairs))
    labels = [f"{a} − {b}" for a, b in pairs]
    coords["contrast"] = text_coordinate(labels, "contrast", "pair of categories")
    coords["compared"] = text_coordinate(
        [_geometry.long_name(name) for name in COMPARED], "compared", "what is compared"
    )
    dims = "contrast compared layer"
    return {
        "contrast_difference": quantity(
            np.stack([one.difference for one in compared]),
            dims,
            "difference between categories, of logarithms where it is a length or a ratio",
        ),
        "contrast_p": quantity(
            p, dims, "p by permutation of prompts, for all layers and quantities, times the number of pairs"
        ),
    }


def _by_layer(prompts: xr.Dataset, name: str) -> np.ndarray:
    values = _transformed(name, prompts[f"prompt_{name}"].values)
    return values[:, 1:] if _geometry.axis_of(name) == "depth" else values  # the norm behind each block


def _cautions(result: xr.Dataset) -> list[str]:
    found = []
    attention = next(name for name in ("attention_share", "prompt_attention_share") if name in result)
    if bool(np.isnan(result[attention].values).all()):
        found.append(
            "No two vectors inside this model's blocks sum to the step, so attention and MLP are not told apart."
        )
    if "prompt_left_out_because" in result:
        out = int((result.prompt_left_out_because.values != "").sum())
        if out:
            found.append(f"{out} of {result.sizes['prompt']} prompts are left out; the reasons are listed.")
    return found
