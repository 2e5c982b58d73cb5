"""Who writes the answer: direct contributions by layer, head and MLP, averaged over prompts and by category."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence import Over, holm_over, named, side_by_side
from layerscope.evidence.groups import ALL_PROMPTS
from layerscope.experiments.logit_lens.settings import Settings
from layerscope.results.escaping import restored

KINDS = {"attention": ("layer",), "mlp": ("layer",), "head": ("layer", "head")}
_TO, _BEYOND = (
    "direct contribution to the answer's logit",
    "direct contribution beyond another prompt's answer",
)
GAPS = (*(f"{kind}_beyond_other" for kind in KINDS), "attention_less_mlps")


def attributed(direct: xr.Dataset, used: np.ndarray, settings: Settings) -> xr.Dataset:
    """Means over all prompts that count and each category of them, and what they give beyond another prompt's answer.

    Args:
        direct: samples of the stage.
        used: which prompts count.
        settings: of the experiment.
    """
    category = np.array([restored(str(name)) for name in direct.prompt_category.values])
    groups = {ALL_PROMPTS: used}
    names = list(dict.fromkeys(category[used]))
    if len(names) > 1:
        groups |= {name: used & (category == name) for name in names}
    kept = {name: direct.isel(prompt=np.flatnonzero(rows)) for name, rows in groups.items() if rows.any()}
    if not kept:
        return xr.Dataset()
    found = side_by_side(
        {name: _of_group(some, settings) for name, some in kept.items()},
        "answered",
        "prompts that are averaged over",
    )
    for gap in GAPS:
        found = holm_over(found, gap, along="answered")
    return found


def _of_group(direct: xr.Dataset, settings: Settings) -> xr.Dataset:
    every = Over(direct, settings, rows="prompt")
    known = np.isfinite(direct.direct_logit.sel(target="another answer").values)
    comparable = direct.isel(prompt=np.flatnonzero(known)) if known.any() else direct
    apart = Over(comparable, settings, rows="prompt")
    found = []
    for kind, dims in KINDS.items():
        to_answer = named(_to(direct, kind), f"{kind}_to_answer", _TO, "logit")
        beyond = named(_beyond(comparable, kind), f"{kind}_beyond_other", _BEYOND, "logit")
        found += [
            every.mean(to_answer, together=dims),
            apart.paired(beyond, together=dims, draws=kind != "head"),
        ]
    for part in ("embedding", "bias"):
        found.append(every.mean(named(_to(direct, part), f"{part}_to_answer", _TO, "logit")))
    less = _over_layers(comparable, "attention") - _over_layers(comparable, "mlp")
    less = named(less, "attention_less_mlps", f"{_BEYOND}; attention less MLPs, over all layers", "logit")
    return xr.merge([*found, apart.paired(less)])


def _to(direct: xr.Dataset, part: str) -> xr.DataArray:
    return direct[f"direct_{part}"].sel(target="answer", drop=True).astype(np.float64)


def _beyond(direct: xr.Dataset, part: str) -> xr.DataArray:
    return _to(direct, part) - direct[f"direct_{part}"].sel(target="another answer", drop=True).astype(
        np.float64
    )


def _over_layers(direct: xr.Dataset, part: str) -> xr.DataArray:
    return _beyond(direct, part).sum("layer", min_count=1)


def cautions_of_direct(result: xr.Dataset) -> list[str]:
    """Why answers, or heads, could not be attributed, each reason once."""
    if "direct_lacks" not in result:
        return []
    reasons = [str(why) for why in dict.fromkeys(result.direct_lacks.values.tolist()) if why]
    return [f"Direct logit attribution lacks parts: {why}." for why in reasons]
