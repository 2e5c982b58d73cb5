"""From what a lens reads at every token to curves with intervals: what `logit_lens` concludes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import text_coordinate
from layerscope.evidence.groups import (
    ALL_PROMPTS,
    Group,
    groups_of_prompts,
    groups_of_tokens,
    intervals,
    main_group,
    passages_left_out,
)
from layerscope.evidence.quantities import contrast_variables, interval_variables, stacked
from layerscope.maths.leading import first_leads, settled
from layerscope.maths.permutation import pairwise_contrasts
from layerscope.results.schema import quantity, write_json
from layerscope.results.words import restored, stored

MEASURED = {
    "kl": ("divergence of the lens from the final distribution", "nat"),
    "log_probability": ("log-probability of the answer", "nat"),
    "rank": ("rank of the answer", "1"),
    "other_log_probability": ("log-probability of another position's answer", "nat"),
    "next_log_probability": ("log-probability of the text's own next token", "nat"),
}
CURVES = {
    "kl": "divergence from the final distribution [nat]",
    "log_probability": "log-probability of the answer [nat]",
    "probability": "probability of the answer",
    "log_rank": "rank of the answer (geometric mean)",
    "leads": "share of answers that lead",
    "other_log_probability": "log-probability of another answer [nat]",
    "next_log_probability": "log-probability of the text's own next token [nat]",
}


def conclude(passages: xr.Dataset, prompts: xr.Dataset, settings: Any, mean: Any) -> xr.Dataset:
    """Everything that is said of the samples, beside the samples."""
    result = xr.merge([passages, prompts], join="outer", compat="override", combine_attrs="override")
    groups: dict[str, Group] = {}
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    if passages.sizes:
        groups |= groups_of_tokens(
            passages, _quantities(passages, ""), first_position=settings.first_position, first_apart=False
        )
        names, reasons = _short_passages(passages, settings)
        coords["passage"] = text_coordinate(names, "passage", "passage")
        variables["left_out_because"] = quantity(reasons, "passage", "why the passage is left out, or empty")
        variables |= _leading(passages, "", "token")
    if prompts.sizes:
        reasons = np.array([_why_not(prompts, place, settings) for place in range(prompts.sizes["prompt"])])
        variables["prompt_left_out_because"] = quantity(
            reasons, "prompt", "why the prompt is left out, or empty"
        )
        of_prompts, _ = groups_of_prompts(
            _quantities(prompts, "prompt_"), prompts.prompt_category.values, reasons == ""
        )
        groups |= of_prompts
        variables |= _leading(prompts, "prompt_", "prompt") | _contrasts(prompts, reasons == "", settings)
    found = [intervals(group, settings) for group in groups.values()]
    curves = stacked([stacked([group[name] for name in CURVES]) for group in found])
    coords |= {
        "group": text_coordinate(list(groups), "group", "tokens or prompts that are averaged over"),
        "quantity": text_coordinate(list(CURVES), "quantity", "what is read"),
    }
    variables |= interval_variables(
        "curve", curves, "group quantity lens depth", "mean over passages or prompts"
    )
    for name, what in _DEPTHS.items():
        variables |= interval_variables(
            name, stacked([group[name] for group in found]), "group lens", f"depth at which {what}", "block"
        )
    variables |= interval_variables(
        "kl_to_average",
        stacked([group["kl_to_average"] for group in found]),
        "group",
        "divergence from the average of other positions' distributions",
        "nat",
    )
    contrasts = variables.pop("contrasts", None)
    result = result.assign(variables).assign_coords(coords)
    if contrasts is not None:
        result = xr.merge([result, contrasts], join="outer", compat="override", combine_attrs="override")
    return write_json(result, cautions=_cautions(result))


_DEPTHS = {"first_leads": "the answer first leads", "settled": "the answer is settled"}


def _quantities(samples: xr.Dataset, prefix: str) -> Group:
    """Everything that is averaged: [token or prompt, lens, depth], or without depth."""
    read = {name: samples[f"{prefix}{name}"].values.astype(np.float64) for name in MEASURED}
    return {
        "kl": read["kl"],
        "log_probability": read["log_probability"],
        "probability": np.exp(read["log_probability"]),
        "log_rank": np.log10(read["rank"]),
        "leads": (read["rank"] == 1).astype(np.float64),
        "other_log_probability": read["other_log_probability"],
        "next_log_probability": read["next_log_probability"],
        "first_leads": first_leads(read["rank"]),
        "settled": settled(read["rank"]),
        "kl_to_average": samples[f"{prefix}kl_to_average"].values.astype(np.float64),
    }


def _leading(samples: xr.Dataset, prefix: str, dimension: str) -> dict[str, Any]:
    ranks = samples[f"{prefix}rank"].values
    depths = {"first_leads": first_leads(ranks), "settled": settled(ranks)}
    return {
        f"{dimension}_{name}": quantity(
            values, f"{dimension} lens", f"depth at which {_DEPTHS[name]}", "block"
        )
        for name, values in depths.items()
    }


def _short_passages(passages: xr.Dataset, settings: Any) -> tuple[list[str], np.ndarray]:
    late = passages.isel(token=np.flatnonzero(passages.position.values >= settings.first_position))
    names = [str(name) for name in passages.passage.values]
    found = passages_left_out(late, names, 1)
    reasons = np.where(found == "", "", f"shorter than {settings.first_position + 1} tokens")
    return [restored(name) for name in names], reasons


def _why_not(prompts: xr.Dataset, place: int, settings: Any) -> str:
    rank = int(prompts.prompt_rank.values[place, 0, -1])
    return f"the answer's rank is {rank}" if rank > 1 and not settings.wrong else ""


def _contrasts(prompts: xr.Dataset, used: np.ndarray, settings: Any) -> dict[str, Any]:
    """Pairs of categories in the depth at which the answer is settled, through the first lens."""
    depths = settled(prompts.prompt_rank.values)[:, 0]
    found = pairwise_contrasts(
        depths[used],
        [restored(str(name)) for name in prompts.prompt_category.values[used]],
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
    )
    return {"contrasts": contrast_variables(found, "the depth at which the answer is settled", "block")}


def curve(result: xr.Dataset, group: str, name: str, lens: str = "logit lens") -> xr.Dataset:
    """`value`, `low`, `high`, `n` of one quantity of one group over depth; ranks as ranks."""
    which = {"group": stored(group), "quantity": name, "lens": lens}
    columns = {"value": "curve", "low": "curve_low", "high": "curve_high", "n": "curve_n"}
    found = xr.Dataset({to: result[of].sel(which).reset_coords(drop=True) for to, of in columns.items()})
    if name == "log_rank":
        for part in ("value", "low", "high"):
            found[part] = 10 ** found[part]
    found["value"].attrs = {"long_name": CURVES[name], "units": "1"}
    return found


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """Divergence of the main group from the final distribution, with its null."""
    group = main_group(result)
    found = curve(result, group, "kl")[["value", "low", "high"]]
    found["value"].attrs = {"long_name": "divergence of the logit lens from the end", "units": "nat"}
    average = float(result.kl_to_average.sel(group=group))
    return found.assign(null=xr.full_like(found["value"], average))


def _cautions(result: xr.Dataset) -> list[str]:
    found = []
    if "prompt_left_out_because" in result:
        out = int((result.prompt_left_out_because.values != "").sum())
        if out:
            found.append(f"{out} of {result.sizes['prompt']} prompts are left out; the reasons are listed.")
    if ALL_PROMPTS not in result.group.values:
        found.append("Passages alone: the answer is the token that the model itself ends up preferring.")
    return found
