"""From every token's harm to means by layer with intervals: what layer_ablation concludes."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import (
    Over,
    as_variables,
    cell_by_cell,
    groups_along,
    measure,
    named,
    text_coordinate,
)
from layerscope.evidence.groups import PASSAGES, Group, groups_of_tokens, intervals, per_unit
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments.layer_ablation.settings import EARLIER, Settings
from layerscope.results.escaping import stored
from layerscope.results.schema import quantity, write_json

LATER = "later tokens"
CURVES = {
    "kl": ("divergence from the model's own distribution", "nat"),
    "same_top": ("share of tokens whose most probable continuation stays", "1"),
    "loss_increase": ("rise of the loss on the next token", "nat"),
}
_LEAST = 1e-6
_EACH = ("passage", "ablation", "layer")


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Means by layer with intervals, against the null, and by category of token."""
    tokens = stages["ablations"]
    values = {name: tokens[name].values.astype(np.float64) for name in CURVES}
    groups = groups_of_tokens(tokens, values, first_position=settings.first_position, first_apart=False)
    groups[LATER] = _at_later_tokens(tokens, values, settings)
    found = [intervals(group, settings) for group in groups.values()]
    curves = stacked([stacked([group[name] for name in CURVES]) for group in found])
    result = tokens.assign(
        interval_variables("curve", curves, "group quantity ablation layer", "mean over passages")
    ).assign_coords(
        group=text_coordinate(list(groups), "group", "tokens that are averaged over"),
        quantity=text_coordinate(list(CURVES), "quantity", "what is read"),
    )
    over = Over(tokens, settings, rows="token_passage")
    harm, used = (
        named(groups[group]["kl"], name, what, "nat", dims=_EACH).assign_coords(ablation=tokens.ablation)
        for group, name, what in (
            (PASSAGES, "mean_kl", "divergence after an ablation, mean over passages"),
            (LATER, "later_use", "divergence at later tokens, a layer skipped at earlier ones"),
        )
    )
    parts = [over.mean(harm, together="layer", draws=True), _against_the_push(harm, over)]
    if f"skip{EARLIER}" in tokens.ablation.values:
        parts.append(over.mean(used.sel(ablation=f"skip{EARLIER}", drop=True), together="layer", draws=True))
    high = found[0]["kl"].high
    result = (
        result.assign(_inert(high, settings))
        .merge(xr.merge(parts))
        .assign_attrs(negligible=settings.negligible)
    )
    return write_json(result, cautions=_cautions(result))


def _at_later_tokens(tokens: xr.Dataset, values: Group, settings: Settings) -> Group:
    late = tokens.later.values & (tokens.position.values >= settings.first_position)
    rows = [some[late[some]] for some in groups_along(tokens, "token_passage").values()]
    return {name: per_unit(found, rows) for name, found in values.items()}


def _against_the_push(harm: xr.DataArray, over: Over) -> xr.Dataset:
    """Skipping less an equally long random push, passage by passage, with p over all layers."""
    if not {"skip", "random push"} <= set(harm.ablation.values.tolist()):
        return xr.Dataset()
    skip, push = (harm.sel(ablation=name, drop=True) for name in ("skip", "random push"))
    excess = named(skip - push, "excess", "divergence by skipping less that by an equally long push", "nat")
    return over.paired(excess, together="layer", p="excess_p")


def _inert(high: np.ndarray, settings: Settings) -> dict[str, xr.Variable]:
    return {
        "inert_layer": quantity(
            [_first_below(ends, settings.negligible) for ends in high],
            "ablation",
            "first layer whose ablation makes no difference",
            "layer",
        ),
        "inert_layers": quantity(
            (high < settings.negligible).sum(axis=-1), "ablation", "layers whose ablation makes no difference"
        ),
    }


def _first_below(high: np.ndarray, negligible: float) -> float:
    inert = np.flatnonzero(high < negligible)
    return float(inert[0]) if inert.size else np.nan


def curve(result: xr.Dataset, ablation: str, name: str = "kl", group: str = PASSAGES) -> xr.Dataset:
    """`value`, `low`, `high`, `n` of one quantity of one group after one ablation, over layers."""
    which = {"group": stored(group), "quantity": name, "ablation": ablation}
    columns = {"value": "curve", "low": "curve_low", "high": "curve_high", "n": "curve_n"}
    found = xr.Dataset({to: result[of].sel(which).reset_coords(drop=True) for to, of in columns.items()})
    long_name, units = CURVES[name]
    found["value"].attrs = {"long_name": long_name, "units": units}
    return found


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """Log10 of the divergence by skipping (or by the first ablation asked for), and what later tokens use."""
    names = [str(name) for name in result.ablation.values]
    chosen = "skip" if "skip" in names else names[0]
    measured = curve(result, chosen)
    logs = xr.Dataset({end: _log(measured[end]) for end in ("value", "low", "high")})
    shown = as_variables(logs, "harm").assign(harm_n=measured.n)
    if "mean_kl_draws" in result:
        shown["harm_draws"] = _log(result.mean_kl_draws.sel(ablation=chosen))
    null = _log(curve(result, "random push").value) if "random push" in names else None
    found = {
        "harm": measure(
            shown,
            "harm",
            label=f"divergence after {chosen} (log10)",
            sense="predictions change much without the layer as it is",
            questions="state",
            null=null,
        )
    }
    if "later_use" in result:
        found["later_use"] = measure(
            result,
            "later_use",
            label="work used by later tokens",
            sense="later tokens' predictions need what the layer did at earlier tokens",
            questions="where information moves",
            null=0.0,
        )
    return found


def _log(harm: xr.DataArray) -> xr.DataArray:
    said = {"long_name": f"log10 of the {harm.attrs.get('long_name', 'divergence')}, in nats", "units": "1"}
    return cell_by_cell(np.log10, harm.clip(min=_LEAST)).assign_attrs(said)


def _cautions(result: xr.Dataset) -> list[str]:
    missing = [
        str(name)
        for name in result.ablation.values
        if np.isnan(result.mean_kl.sel(ablation=name).values).all()
    ]
    return [f"Not possible on this model: {', '.join(missing)}."] if missing else []
