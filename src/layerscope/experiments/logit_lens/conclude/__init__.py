"""From what a lens reads at every token to curves with intervals: what logit_lens concludes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import Over, as_variables, measure, named, text_coordinate
from layerscope.evidence.groups import (
    ALL_PROMPTS,
    PASSAGES,
    Group,
    cautions_of_left_out,
    groups_of_prompts,
    groups_of_tokens,
    intervals,
    main_group,
    passages_left_out,
    prompts_left_out,
)
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments.logit_lens.conclude.curves import CURVES, DEPTHS, curve, quantities
from layerscope.experiments.logit_lens.conclude.direct import attributed, cautions_of_direct
from layerscope.experiments.logit_lens.settings import Settings
from layerscope.maths.leading import first_leads, settled
from layerscope.results.escaping import restored, stored
from layerscope.results.schema import quantity, write_json

__all__ = ["conclude", "curve", "over_depth"]


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Curves with intervals by group, the depths where the answer leads and is settled, and contrasts."""
    passages, prompts = stages["passages"], stages["prompts"]
    direct, shown = (stages.get(name, xr.Dataset()) for name in ("direct", "shown"))
    groups: dict[str, Group] = {}
    parts: list[xr.Dataset] = []
    if prompts.sizes:
        reasons = prompts_left_out(prompts.prompt_rank.values[:, 0, -1], wrong=settings.wrong)
        over = Over(prompts.isel(prompt=np.flatnonzero(reasons == "")), settings, rows="prompt")
        of_prompts, _ = groups_of_prompts(
            quantities(prompts, "prompt_"), prompts.prompt_category.values, reasons == ""
        )
        groups |= of_prompts
        parts += [_of_prompts(prompts, reasons), _contrasts(prompts, reasons == "", over)]
        parts += [] if passages.sizes else [_of_the_main_group(of_prompts[ALL_PROMPTS], over)]
        if direct.sizes:
            parts += [direct, attributed(direct, reasons == "", settings)]
    if passages.sizes:
        of_tokens = groups_of_tokens(
            passages, quantities(passages, ""), first_position=settings.first_position, first_apart=False
        )
        groups = of_tokens | groups
        parts += [_of_passages(passages, settings)]
        parts += [_of_the_main_group(of_tokens[PASSAGES], Over(passages, settings, rows="token_passage"))]
    samples = xr.merge([passages, prompts], join="outer", compat="override", combine_attrs="override")
    result = xr.merge(
        [samples.assign_coords(_axes(groups)).assign(_averages(groups, settings)), *parts, shown],
        join="outer",
        compat="override",
        combine_attrs="override",
    )
    return write_json(result, cautions=[*cautions_of_left_out(result), *_cautions(result)])


def _axes(groups: dict[str, Group]) -> dict[str, Any]:
    return {
        "group": text_coordinate(list(groups), "group", "tokens or prompts that are averaged over"),
        "quantity": text_coordinate(list(CURVES), "quantity", "what is read"),
    }


def _averages(groups: dict[str, Group], settings: Settings) -> dict[str, xr.Variable]:
    """Every quantity of every group with its interval."""
    found = [intervals(group, settings) for group in groups.values()]
    curves = stacked([stacked([group[name] for name in CURVES]) for group in found])
    variables = interval_variables(
        "curve", curves, "group quantity lens depth", "mean over passages or prompts"
    )
    for name, what in DEPTHS.items():
        each = stacked([group[name] for group in found])
        variables |= interval_variables(name, each, "group lens", f"depth at which {what}", "layer")
    average = stacked([group["kl_to_average"] for group in found])
    what = "divergence from the average of other positions' distributions"
    return variables | interval_variables("kl_to_average", average, "group", what, "nat")


def _leading(samples: xr.Dataset, prefix: str, dimension: str) -> dict[str, Any]:
    ranks = samples[f"{prefix}rank"].values
    depths = {"first_leads": first_leads(ranks), "settled": settled(ranks)}
    return {
        f"{dimension}_{name}": quantity(
            values, f"{dimension} lens", f"depth at which {DEPTHS[name]}", "layer"
        )
        for name, values in depths.items()
    }


def _of_passages(passages: xr.Dataset, settings: Settings) -> xr.Dataset:
    late = passages.isel(token=np.flatnonzero(passages.position.values >= settings.first_position))
    names = [str(name) for name in passages.passage.values]
    found = passages_left_out(late, names, 1)
    reasons = np.where(found == "", "", f"shorter than {settings.first_position + 1} tokens")
    return xr.Dataset(
        _leading(passages, "", "token")
        | {"left_out_because": quantity(reasons, "passage", "why the passage is left out, or empty")},
        coords={"passage": text_coordinate([restored(name) for name in names], "passage", "passage")},
    )


def _of_prompts(prompts: xr.Dataset, reasons: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        _leading(prompts, "prompt_", "prompt")
        | {"prompt_left_out_because": quantity(reasons, "prompt", "why the prompt is left out, or empty")},
        coords={"prompt": prompts.prompt},
    )


def _contrasts(prompts: xr.Dataset, used: np.ndarray, over: Over) -> xr.Dataset:
    """Pairs of categories in the depth at which the answer is settled, through the first lens."""
    depths = named(
        settled(prompts.prompt_rank.values)[:, 0][used],
        "settled",
        "the depth at which the answer is settled",
        "layer",
        dims=("prompt",),
    )
    return over.contrasts(depths, prompts.prompt_category.values[used])


def _of_the_main_group(group: Group, over: Over) -> xr.Dataset:
    """How near each depth is to the end, and how much nearer than the average prediction."""
    dims = (over.unit, "lens", "depth")
    kl = named(group["kl"], "divergence", "divergence of the lens from the end", "nat", dims=dims)
    gain = group["kl_to_average"][:, None, None] - group["kl"]
    gain[:, :, -1] = np.nan  # the last lens is the model itself
    less = named(
        gain, "nearer_than_average", "divergence of the average prediction, less the lens's", "nat", dims=dims
    )
    return xr.merge([over.mean(kl, draws=True), over.paired(less, together="depth")])


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """Divergence of the main group from the final distribution, and what attention and MLPs write towards answers."""
    group = main_group(result)
    older = as_variables(curve(result, group, "kl"), "divergence")
    found = {
        "divergence": measure(
            result.sel(lens="logit lens") if "divergence" in result else older,
            "divergence",
            label="logit lens divergence from output",
            sense="what the model would say here is far from what it ends up saying",
            questions="what is decodable",
            null=float(result.kl_to_average.sel(group=stored(group))),
        ).assign_attrs(log=1)
    }
    for kind, writes in (("attention", "attention writes"), ("mlp", "MLPs write")):
        variable = f"{kind}_beyond_other"
        if variable in result and np.isfinite(result[variable].sel(answered=ALL_PROMPTS)).any():
            found[f"direct_{kind}"] = measure(
                result,
                variable,
                label=f"direct logit attribution of {writes.partition(' ')[0]}",
                sense=f"{writes} directly towards the answer, more than towards another prompt's answer",
                questions="where information moves",
                null=0.0,
                answered=ALL_PROMPTS,
            )
    return found


def _cautions(result: xr.Dataset) -> list[str]:
    if ALL_PROMPTS in result.group.values:
        return cautions_of_direct(result)
    return ["Passages alone: the answer is the token that the model itself ends up preferring."]
