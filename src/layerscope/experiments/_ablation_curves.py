"""From every token's harm to means by block with intervals: what `layer_ablation` concludes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import groups_along, text_coordinate
from layerscope.evidence.groups import PASSAGES, Group, groups_of_tokens, intervals, per_unit
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.maths.max_statistic import compare_pairs
from layerscope.results.escaping import stored
from layerscope.results.schema import quantity, write_json

LATER = "later tokens"
EARLIER = " earlier"
"""How ablations end that are done to earlier tokens only, and read at later ones."""
CURVES = {
    "kl": "divergence from the model's own distribution [nat]",
    "same_top": "share of tokens whose most probable continuation stays",
    "loss_increase": "rise of the loss on the next token [nat]",
}
_LEAST = 1e-6


def conclude(tokens: xr.Dataset, settings: Any, mean: Any) -> xr.Dataset:
    """Everything that is said of the samples, beside the samples."""
    values = {name: tokens[name].values.astype(np.float64) for name in CURVES}
    groups = groups_of_tokens(tokens, values, first_position=settings.first_position, first_apart=False)
    groups[LATER] = _later(tokens, values, settings)
    found = [intervals(group, settings) for group in groups.values()]
    variables: dict[str, Any] = interval_variables(
        "curve",
        stacked([stacked([group[name] for name in CURVES]) for group in found]),
        "group quantity ablation layer",
        "mean over passages",
    )
    variables |= interval_variables(
        "mean_kl", found[0]["kl"], "ablation layer", "divergence after an ablation, mean over passages", "nat"
    )
    variables |= _against_the_push(groups[PASSAGES], tokens, mean, settings)
    variables["inert_layer"] = quantity(
        [_first_inert(high, settings.negligible) for high in found[0]["kl"].high],
        "ablation",
        "first block whose ablation makes no difference",
        "block",
    )
    variables["inert_layers"] = quantity(
        (found[0]["kl"].high < settings.negligible).sum(axis=-1),
        "ablation",
        "blocks whose ablation makes no difference",
    )
    result = tokens.assign(variables).assign_coords(
        group=text_coordinate(list(groups), "group", "tokens that are averaged over"),
        quantity=text_coordinate(list(CURVES), "quantity", "what is read"),
    )
    result = result.assign_attrs(negligible=settings.negligible)
    return write_json(result, cautions=_cautions(result))


def _later(tokens: xr.Dataset, values: Group, settings: Any) -> Group:
    late = tokens.later.values & (tokens.position.values >= settings.first_position)
    rows = [some[late[some]] for some in groups_along(tokens, "token_passage").values()]
    return {name: per_unit(found, rows) for name, found in values.items()}


def _against_the_push(group: Group, tokens: xr.Dataset, mean: Any, settings: Any) -> dict[str, Any]:
    """Skipping less an equally long random push, passage by passage, with p over all blocks."""
    names = [str(name) for name in tokens.ablation.values]
    if not {"skip", "random push"} <= set(names):
        return {}
    skip, push = (group["kl"][:, names.index(name)] for name in ("skip", "random push"))
    excess = skip - push
    return interval_variables(
        "excess", mean(excess), "layer", "divergence by skipping less that by an equally long push", "nat"
    ) | {
        "excess_p": quantity(
            compare_pairs(excess, seed=settings.seed),
            "layer",
            "p by dealing signs to passages, for all blocks",
        )
    }


def _first_inert(high: np.ndarray, negligible: float) -> float:
    inert = np.flatnonzero(high < negligible)
    return float(inert[0]) if inert.size else np.nan


def curve(result: xr.Dataset, ablation: str, name: str = "kl", group: str = PASSAGES) -> xr.Dataset:
    """`value`, `low`, `high`, `n` of one quantity of one group after one ablation, over layers."""
    which = {"group": stored(group), "quantity": name, "ablation": ablation}
    columns = {"value": "curve", "low": "curve_low", "high": "curve_high", "n": "curve_n"}
    found = xr.Dataset({to: result[of].sel(which).reset_coords(drop=True) for to, of in columns.items()})
    found["value"].attrs = {"long_name": CURVES[name], "units": "1"}
    return found


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """Log10 of the divergence by skipping (or by the first ablation that was asked for), with its null."""
    names = [str(name) for name in result.ablation.values]
    chosen = "skip" if "skip" in names else names[0]
    found = curve(result, chosen)[["value", "low", "high"]]
    if "random push" in names:
        found = found.assign(null=curve(result, "random push").value)
    found = found.clip(min=_LEAST).map(np.log10)
    found["value"].attrs = {"long_name": f"log10 of the divergence after {chosen} [nat]", "units": "1"}
    return found


def _cautions(result: xr.Dataset) -> list[str]:
    missing = [
        str(name)
        for name in result.ablation.values
        if np.isnan(result.mean_kl.sel(ablation=name).values).all()
    ]
    return [f"Not possible on this model: {', '.join(missing)}."] if missing else []
