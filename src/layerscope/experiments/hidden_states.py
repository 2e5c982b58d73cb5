"""How does the state move through depth: how long is it, how far does each block move it, and does it turn?

For every token of every passage: the norm of the residual stream at each depth, the length of each
block's step beside the state it starts from, the cosine between one step and the next, and the cosine
between the states before and after each block. The growth rate is the slope of log norm over depth,
without its first and last step.

Every token is kept; averages leave out the first positions, and treat passages, not tokens, as
independent. The first token is shown apart: it can be twenty times longer than any other.

Beware: the state grows while steps keep their length, so the cosine between neighbouring depths rises
for that reason alone; read it beside the relative step.

Source: Kinniment 2022, "Recall and Regurgitation in GPT2", hidden states; Heimersheim & Turner 2023,
"Residual stream norms grow exponentially over the forward pass".
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field

from layerscope import runs
from layerscope.errors import LayerscopeError
from layerscope.experiments._contract import Claim, Earlier, ExperimentSettings, Inputs, Stage, WorkItem
from layerscope.experiments._coordinates import (
    depth_coordinate,
    groups_along,
    layer_coordinate,
    passage_token_coordinates,
    text_coordinate,
)
from layerscope.experiments._summaries import as_curve, interval_variables, number_or_none
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.path import growth_rate, relative_step, steps, successive_cosine, turn
from layerscope.maths.similarity import norm
from layerscope.plots.curves import curve_over_depth
from layerscope.results.schema import quantity, write_json
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

TAKES = {"passages"}

_STEPS = {
    "step": "length of a block's step",
    "relative_step": "length of a block's step over that of the state",
    "turn": "cosine between a block's step and the step before it",
    "successive_cosine": "cosine between the states before and after a block",
}


class Settings(ExperimentSettings):
    """Choices about averages; what is measured has none."""

    first_position: int = Field(1, ge=0, description="positions before this one are left out of averages")
    leave_out_ends: int = Field(
        1,
        ge=0,
        description="depths left out at each end of the growth rate: the first block does something else",
    )
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(2000, gt=0, description="bootstrap resamples of passages")


class PassageItem(WorkItem):
    """One passage."""

    passage: TokenisedPassage


def _one_per_passage(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PassageItem]:
    longest = max(len(passage.tokens) for passage in inputs.passages)
    if longest <= settings.first_position:
        raise LayerscopeError(
            "no token is left to average over",
            found=f"the longest passage has {longest} tokens, first_position is {settings.first_position}",
            expected="passages longer than first_position",
            hint="--set first_position=1, or longer passages",
        )
    for passage in inputs.passages:
        yield PassageItem(name=passage.name, size=len(passage.tokens), passage=passage)


def _measure(model: LayeredModel, item: PassageItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    states = runs.read_states(model, item.passage.tokens.ids).float().transpose(0, 1)  # [token depth width]
    turns = np.full((states.shape[0], model.n_layers), np.nan, dtype=np.float32)
    turns[:, 1:] = turn(states).cpu().numpy()
    return xr.Dataset(
        {
            "norm": quantity(norm(states).cpu().numpy(), "token depth", "norm of the residual stream"),
            "step": quantity(norm(steps(states)).cpu().numpy(), "token layer", _STEPS["step"]),
            "relative_step": quantity(
                relative_step(states).cpu().numpy(), "token layer", _STEPS["relative_step"]
            ),
            "turn": quantity(turns, "token layer", _STEPS["turn"]),
            "successive_cosine": quantity(
                successive_cosine(states).cpu().numpy(), "token layer", _STEPS["successive_cosine"]
            ),
        },
        coords=passage_token_coordinates(item.passage)
        | {"depth": depth_coordinate(model.n_layers), "layer": layer_coordinate(model.n_layers)},
    )


STAGES = (Stage("states", items=_one_per_passage, measure=_measure),)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Curves over depth with intervals over passages, the first token apart, and the growth rate."""
    states = stages["states"]
    passages = groups_along(states, "token_passage")
    kept = {
        name: rows[states.position.values[rows] >= settings.first_position] for name, rows in passages.items()
    }
    firsts = np.array([rows[0] for rows in passages.values()])
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)

    log_norms = _per_passage(np.log(states.norm.values), kept)
    variables = interval_variables(
        "mean_log_norm", mean(log_norms), "depth", "mean log norm over passages", "nat"
    ) | interval_variables(
        "first_log_norm",
        mean(np.log(states.norm.values[firsts])),
        "depth",
        "log norm of the first token",
        "nat",
    )
    for name, long_name in _STEPS.items():
        means = _per_passage(states[name].values, kept)
        variables |= interval_variables(f"mean_{name}", mean(means), "layer", f"{long_name}, mean")
    first, last = _growing_depths(settings, states.sizes["layer"])
    rates = np.expm1(growth_rate(np.exp(log_norms), first=first, last=last))
    variables |= interval_variables("growth_rate", mean(rates), "", "growth of the norm per block")
    reasons = [
        "" if rows.size else f"shorter than {settings.first_position + 1} tokens" for rows in kept.values()
    ]
    variables["left_out_because"] = quantity(
        np.array(reasons), "passage", "why the passage is left out, or empty"
    )
    result = states.assign(variables).assign_coords(
        passage=xr.Variable(("passage",), np.array(list(passages)), {"long_name": "passage"})
    )
    result = result.assign_attrs(growth_first=first, growth_last=last)
    return write_json(result, cautions=[])


def _growing_depths(settings: Settings, n_layers: int) -> tuple[int, int]:
    """First and last depth of the growth rate; at least two depths are kept."""
    ends = min(settings.leave_out_ends, (n_layers - 1) // 2)
    return ends, n_layers - ends


def _per_passage(values: np.ndarray, kept: dict[str, np.ndarray]) -> np.ndarray:
    """Mean over the kept tokens of each passage; NaN where a passage has none."""
    empty = np.full(values.shape[1:], np.nan)
    return np.stack([values[rows].mean(axis=0) if rows.size else empty for rows in kept.values()])


def claims(result: xr.Dataset) -> list[Claim]:
    """How fast the state grows, and how the first token differs."""
    rate = float(result.growth_rate)
    n = int(result.growth_rate_n)
    first = np.exp(float((result.first_log_norm - result.mean_log_norm).max()))
    return [
        Claim(
            text=f"from depth {result.attrs['growth_first']} to {result.attrs['growth_last']} "
            f"the state {'grows' if rate > 0 else 'shrinks'} by {abs(rate):.1%} per block",
            value=rate,
            low=number_or_none(result.growth_rate_low),
            high=number_or_none(result.growth_rate_high),
            caveat=f"slope of log norm over depth, mean over {n} passages; "
            "cosines between neighbouring depths rise with growth alone",
            select={"variable": "growth_rate"},
        ),
        Claim(
            text=f"the first token's state is up to {first:.1f} times as long as the others', on average",
            value=float(first),
            caveat="geometric means, at the depth where they differ most; the first token is BOS where one is "
            "put in front; a large ratio marks an attention sink",
            select={"variable": "first_log_norm"},
        ),
    ]


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """How far each block moves the state beside its length, as a power of ten: the first block moves it most."""
    curve = as_curve(result, "mean_relative_step").map(np.log10)
    curve["value"].attrs = {"long_name": "log10 of a block's step over the length of the state", "units": "1"}
    return curve


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Norm, relative step, turn and cosine over depth."""
    figures = {"norm over depth": curve_over_depth(_norms(result), log=True)}
    titles = {
        "relative_step": "length of each block's step",
        "turn": "does a block go on where the last one went?",
        "successive_cosine": "cosine between neighbouring depths",
    }
    for name, title in titles.items():
        figures[title] = curve_over_depth(as_curve(result, f"mean_{name}"), log=name == "relative_step")
    return figures


def _norms(result: xr.Dataset) -> xr.Dataset:
    kinds = {"tokens after the first": "mean_log_norm", "first token": "first_log_norm"}
    curves = [as_curve(result, name).map(np.exp) for name in kinds.values()]
    both = xr.concat(curves, dim="row", join="exact").assign_coords(
        row=text_coordinate(list(kinds), "row", "tokens")
    )
    both["value"].attrs = {"long_name": "norm of the residual stream (geometric mean)", "units": "1"}
    return both
