"""From the path of every token to curves with intervals: what hidden_states concludes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import as_variables, measure, number_coordinate
from layerscope.evidence.groups import (
    PASSAGES,
    Group,
    cautions_of_left_out,
    main_group,
    passages_left_out,
    prompts_left_out,
)
from layerscope.experiments.hidden_states.conclude.contrasts import compared_categories
from layerscope.experiments.hidden_states.conclude.curves import (
    curve,
    group_curves,
    groups_at_last_tokens,
    groups_in_passages,
    of_the_main_group,
)
from layerscope.experiments.hidden_states.conclude.phases import phase_variables
from layerscope.experiments.hidden_states.conclude.similarity import alignments, pairs_of_depths
from layerscope.experiments.hidden_states.measure.texts import massive_dimensions
from layerscope.experiments.hidden_states.settings import Settings
from layerscope.results.schema import quantity, write_json

__all__ = ["conclude", "curve", "over_depth"]


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Curves with intervals over passages and over prompts, categories, growth, similarity, phases."""
    passages, prompts, centre = stages["passages"], stages["prompts"], stages["centre"]
    ends = _growing_depths(settings, centre.sizes["depth"] - 1)
    coords: dict[str, Any] = {}
    variables = _massive(centre, settings, coords)
    groups: dict[str, Group] = {}
    if passages.sizes:
        groups |= groups_in_passages(passages, settings)
        variables |= pairs_of_depths(passages, settings) | alignments(passages, settings)
        variables |= phase_variables(groups[PASSAGES], settings, coords)
        names = [str(name) for name in passages.passage.values]
        reasons = passages_left_out(passages, names, settings.first_position + 1)
        variables["left_out_because"] = quantity(reasons, "passage", "why the passage is left out, or empty")
    if prompts.sizes:
        reasons = prompts_left_out(prompts.answer_rank.values, wrong=settings.wrong)
        of_prompts, rows = groups_at_last_tokens(prompts, reasons)
        groups |= of_prompts
        variables |= compared_categories(prompts, rows, settings, coords)
        variables["prompt_left_out_because"] = quantity(
            reasons, "prompt", "why the prompt is left out, or empty"
        )
    variables |= group_curves(groups, settings, ends, coords)
    samples = xr.merge([passages, prompts], join="outer", compat="override", combine_attrs="override")
    result = samples.assign(variables).assign_coords(coords)
    result = result.merge(of_the_main_group(groups, stages, settings))
    result = result.assign_attrs(growth_first=ends[0], growth_last=ends[1])
    return write_json(result, cautions=[*_cautions(result), *cautions_of_left_out(result)])


def _growing_depths(settings: Settings, n_layers: int) -> tuple[int, int]:
    """First and last depth of the growth rate; at least two depths are kept."""
    ends = min(settings.leave_out_ends, (n_layers - 1) // 2)
    return ends, n_layers - ends


def _massive(centre: xr.Dataset, settings: Settings, coords: dict[str, Any]) -> dict[str, Any]:
    massive = massive_dimensions(centre, settings.massive)
    coords["rank"] = number_coordinate(range(len(massive)), "rank", "rank, from 0")
    return {
        "massive_dimension": quantity(massive, "rank", "massive dimension, by share of the squared norm"),
        "massive_share_expected": quantity(
            _expected_share(centre.sizes["width"], settings.massive, settings.seed),
            "",
            "share of the squared norm in the largest entries of a random state",
        ),
    }


def _expected_share(width: int, count: int, seed: int) -> float:
    squares = np.random.default_rng(seed).standard_normal((500, width)) ** 2
    largest = np.sort(squares, axis=1)[:, -count:].sum(axis=1)
    return float((largest / squares.sum(axis=1)).mean())


def _cautions(result: xr.Dataset) -> list[str]:
    attention = next(name for name in ("attention_share", "prompt_attention_share") if name in result)
    if not bool(np.isnan(result[attention].values).all()):
        return []
    return ["No two vectors inside this model's layers sum to the step: attention and MLP are not separated."]


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """How far each layer moves the state, along it or against it, and attention's part in that."""
    said = {
        "log_relative_step": ("relative step (log10)", "a layer moves the state far, for its length"),
        "step_along_state": ("cosine of step with state", "a layer strengthens what is there"),
        "attention_part": (
            "attention's share of the step",
            "attention writes more of a layer's step than its MLP",
        ),
    }
    nulls = {"log_relative_step": None, "step_along_state": 0.0, "attention_part": 0.5}
    shown = result if "log_relative_step" in result else _of_older_result(result)
    return {
        name: measure(shown, name, label=label, sense=sense, questions="state", null=nulls[name])
        for name, (label, sense) in said.items()
        if name in shown and bool(np.isfinite(shown[name]).any())
    }


def _of_older_result(result: xr.Dataset) -> xr.Dataset:
    """The relative step of a result that keeps no replicates."""
    found = curve(result, main_group(result), "relative_step")[["value", "low", "high"]].map(np.log10)
    return as_variables(found, "log_relative_step")
