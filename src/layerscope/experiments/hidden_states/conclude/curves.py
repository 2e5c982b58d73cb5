"""Groups of tokens and prompts, and the curves of each with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import Over, named, text_coordinate
from layerscope.evidence.groups import (
    ALL_PROMPTS,
    FIRST,
    PASSAGES,
    Group,
    groups_of_prompts,
    groups_of_tokens,
    intervals,
    prompts_left_out,
)
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments.hidden_states.measure.path import (
    OVER_DEPTH,
    OVER_LAYERS,
    RATIOS,
    axis_of,
    long_name,
)
from layerscope.experiments.hidden_states.settings import Settings
from layerscope.maths.bootstrap import Interval
from layerscope.maths.path import growth_rate
from layerscope.results.escaping import stored

NAMES = (*OVER_DEPTH, *OVER_LAYERS)
LAYER_NAMES = OVER_LAYERS | {"growth": "growth of the norm in each layer"}


def groups_in_passages(states: xr.Dataset, settings: Settings) -> dict[str, Group]:
    """Late tokens, first tokens, and each category of late tokens: means within passages."""
    values = {name: transformed(name, states[name].values) for name in NAMES}
    return groups_of_tokens(states, values, first_position=settings.first_position, first_apart=True)


def groups_at_last_tokens(
    prompts: xr.Dataset, reasons: np.ndarray
) -> tuple[dict[str, Group], dict[str, np.ndarray]]:
    """All prompts that count and each category of them; the rows of each category."""
    values = {name: transformed(name, prompts[f"prompt_{name}"].values) for name in NAMES}
    return groups_of_prompts(values, prompts.prompt_category.values, reasons == "")


def transformed(name: str, values: np.ndarray) -> np.ndarray:
    """Logarithms of what is a length or a ratio; all in float64."""
    values = values.astype(np.float64)
    return np.log(np.where(values > 0, values, np.nan)) if name in RATIOS else values


def group_curves(
    groups: dict[str, Group], settings: Settings, ends: tuple[int, int], coords: dict[str, Any]
) -> dict[str, Any]:
    """Every quantity of every group with its interval, and the rate of growth."""
    depth_curves, layer_curves, rates = [], [], []
    for group in groups.values():
        growth = {
            "growth": np.diff(group["norm"], axis=1),
            "rate": growth_rate(np.exp(group["norm"]), first=ends[0], last=ends[1])[:, None],
        }
        found = intervals(group | growth, settings)
        depth_curves.append(stacked([_out_of_logarithms(name, found[name]) for name in OVER_DEPTH]))
        layer_curves.append(stacked([_out_of_logarithms(name, found[name]) for name in LAYER_NAMES]))
        rates.append(_single(_out_of_logarithms("rate", found["rate"])))
    coords["group"] = text_coordinate(list(groups), "group", "tokens or prompts that are averaged over")
    coords["over_depth"] = text_coordinate(list(OVER_DEPTH), "over_depth", "quantity over depth")
    coords["over_layers"] = text_coordinate(list(LAYER_NAMES), "over_layers", "quantity over layers")
    mean = "mean over passages or prompts"
    return (
        interval_variables("depth_curve", stacked(depth_curves), "group over_depth depth", mean)
        | interval_variables("layer_curve", stacked(layer_curves), "group over_layers layer", mean)
        | interval_variables(
            "growth_rates", stacked(rates), "group", "growth of the norm per layer, by group"
        )
        | interval_variables("growth_rate", rates[0], "", "growth of the norm per layer")
    )


def _single(interval: Interval) -> Interval:
    """Without its last axis, which has one place."""
    return Interval(interval.value[..., 0], interval.low[..., 0], interval.high[..., 0], interval.n[..., 0])


def _out_of_logarithms(name: str, interval: Interval) -> Interval:
    """A length as it is, growth as what is added."""
    if name in ("growth", "rate"):
        back: Any = np.expm1
    elif name in RATIOS:
        back = np.exp
    else:
        return interval
    return Interval(back(interval.value), back(interval.low), back(interval.high), interval.n)


def of_the_main_group(groups: dict[str, Group], stages: Earlier, settings: Settings) -> xr.Dataset:
    """What claims pick the best layer or depth of, with intervals for all of them at once, and what the atlas reads."""
    if PASSAGES in groups:
        group, over = groups[PASSAGES], Over(stages["passages"], settings, rows="token_passage")
    else:
        reasons = prompts_left_out(stages["prompts"].answer_rank.values, wrong=settings.wrong)
        used = stages["prompts"].isel(prompt=np.flatnonzero(reasons == ""))
        group, over = groups[ALL_PROMPTS], Over(used, settings, rows="prompt")

    def each(values: np.ndarray, name: str, what: str, axis: str) -> xr.DataArray:
        return named(values, name, what, dims=(over.unit, axis))

    step = each(
        group["relative_step"] / np.log(10),
        "log_relative_step",
        "log10 of a layer's step over the state",
        "layer",
    )
    along = each(group["step_direction"], "step_along_state", long_name("step_direction"), "layer")
    part = each(group["attention_share"], "attention_part", long_name("attention_share"), "layer")
    share = each(group["massive_share"], "largest_entries", long_name("massive_share"), "depth")
    found = [
        over.mean(step, draws=True),
        over.mean(along, together="layer", draws=True),
        over.mean(part, together="layer", draws=True),
        over.mean(share, together="depth"),
    ]
    if FIRST in groups:
        ratio = each(groups[FIRST]["norm"] - group["norm"], "ratio", "logarithm of a ratio", "depth")
        longer = over.means(ratio).map(np.exp)
        found.append(
            over.quantity(
                longer.named(
                    "first_token_length", "length of the first token's state over that of later ones'"
                ),
                together="depth",
            )
        )
    return xr.merge(found)


def curve(result: xr.Dataset, group: str, name: str) -> xr.Dataset:
    """`value`, `low`, `high` and `n` of one quantity of one group over layer or depth."""
    of = f"{axis_of(name)}_curve"
    which = {"group": stored(group), "over_depth" if of == "depth_curve" else "over_layers": name}
    columns = {"value": of, "low": f"{of}_low", "high": f"{of}_high", "n": f"{of}_n"}
    found = xr.Dataset({to: result[name].sel(which).reset_coords(drop=True) for to, name in columns.items()})
    found["value"].attrs = {"long_name": LAYER_NAMES.get(name) or long_name(name), "units": "1"}
    return found
