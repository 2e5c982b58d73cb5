"""From kept effects to maps with intervals and controls, centroids of depth, and the index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.evidence.coordinates import groups_along, text_coordinate
from layerscope.evidence.curves import as_curve
from layerscope.evidence.distances import cautions_of_unread, context_of_range
from layerscope.evidence.quantities import contrast_variables, interval_variables, stacked
from layerscope.experiments._knockout_items import SUBJECT
from layerscope.experiments._knockout_maps import Units, how_of, maps
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.depth_profile import apart, centroid
from layerscope.maths.permutation import pairwise_contrasts
from layerscope.results.escaping import restored
from layerscope.results.schema import quantity, write_json

if TYPE_CHECKING:
    from layerscope.contract import Earlier
    from layerscope.experiments.attention_knockout import Settings

ALL = "all prompts"


def summarised(stages: Earlier, settings: Settings) -> xr.Dataset:
    """The result: everything that was kept, and what follows from it.

    Raises:
        LayerscopeError: no prompt is left, and there are no passages.
    """
    parts, cautions = [], []
    if stages["passages"].sizes.get("token"):
        result, said = _passages(stages["passages"], settings)
        parts.append(result)
        cautions += said
    if stages["prompts"].sizes.get("prompt"):
        about_prompts, said = _prompts(stages["prompts"], settings, alone=not parts)
        parts += [] if about_prompts is None else [about_prompts]
        cautions += said
    merged = xr.merge(parts, combine_attrs="drop_conflicts", compat="equals", join="exact")
    return write_json(merged.assign_attrs(control=settings.control), cautions=cautions)


# -- passages -------------------------------------------------------------------------------------------


def _passages(kept: xr.Dataset, settings: Settings) -> tuple[xr.Dataset, list[str]]:
    rows = groups_along(kept, "token_passage")
    units = Units.of(kept, list(rows.values()), "", "edges")
    bands = (kept.sizes["edges"] + 1) // 2
    variables = maps(units, settings) | _indices(units, bands, settings)
    result = kept.assign(variables).assign_coords(
        used_passage=xr.Variable(("used_passage",), list(rows), {"long_name": "passage with targets"})
    )
    cautions = cautions_of_unread(result)
    out = int((result.left_out_because.values != "").sum())
    if out:
        cautions.append(f"{out} of {result.sizes['passage']} passages are left out as too short.")
    blind = _blind(units.divergence[:, bands - 1, 0, 0], result.layer.values)
    if blind:
        cautions.append(
            f"Layers {blind} cannot see the farthest range (windows, or no attention): it can be needed elsewhere "
            "only, which moves its centroid."
        )
    if not kept.attrs.get("bos", 1):
        cautions.append(
            "Nothing stands first in these texts: their first token is an ordinary word, which heads may rest on."
        )
    return result.assign_attrs(passages=len(rows), bands=bands), cautions


def _blind(divergence: np.ndarray, layers: np.ndarray) -> str:
    """Layers without any edge, where others have some."""
    empty = np.isnan(divergence).all(axis=0)
    return ", ".join(str(layer) for layer in layers[empty]) if not empty.all() else ""


def _indices(units: Units, bands: int, settings: Settings) -> dict[str, xr.Variable]:
    how = how_of(settings)
    of_each = centroid(units.divergence)  # [passage edges fate window]
    of_control, of_mass = centroid(units.control), centroid(units.mass)
    far, near = bands - 1, 0

    def index(values: np.ndarray) -> np.ndarray:
        return apart(values[:, far], values[:, near])

    variables = (
        interval_variables(
            "centroid",
            bootstrap_mean(of_each, **how),
            "edges fate window",
            "centroid of depth of the divergence",
            "block",
        )
        | interval_variables(
            "far_less_near",
            bootstrap_mean(index(of_each), **how),
            "fate window",
            "centroid of depth of the divergence, far less near",
            "block",
        )
        | interval_variables(
            "far_less_near_of_control",
            bootstrap_mean(index(of_control), **how),
            "window",
            "centroid of depth with keys cut at random, far less near",
            "block",
        )
        | interval_variables(
            "far_less_near_beyond_control",
            bootstrap_mean(apart(index(centroid(units.compared)), index(of_control)), **how),
            "window",
            "far less near, less the same with keys cut at random",
            "block",
        )
        | interval_variables(
            "far_less_near_of_mass",
            bootstrap_mean(index(of_mass), **how),
            "window",
            "centroid of depth of the attention that was cut, far less near",
            "block",
        )
    )
    variables["passage_centroid"] = quantity(
        of_each[:, :, 0],
        "used_passage edges window",
        "centroid of depth of the divergence, of one passage",
        "block",
    )
    return variables


# -- prompts --------------------------------------------------------------------------------------------


def _prompts(kept: xr.Dataset, settings: Settings, *, alone: bool) -> tuple[xr.Dataset | None, list[str]]:
    used = np.flatnonzero(kept.prompt_left_out_because.values == "")
    if not len(used):
        if alone:
            raise LayerscopeError(
                "no prompt is left to cut",
                found=f"{kept.sizes['prompt']} prompts, the first left out because: "
                f"{restored(str(kept.prompt_left_out_because.values[0]))}",
                expected="prompts whose answer is the model's most probable next token",
                hint="--set wrong=true, or layerscope check-prompts FILE --model MODEL",
            )
        return None, [f"All {kept.sizes['prompt']} prompts are left out; only passages were cut."]
    units = Units.of(kept, [np.array([row]) for row in used], "prompt_", "prompt_edges")
    variables = maps(units, settings) | _by_category(kept, units, used, settings)
    categories = _categories(kept, used)
    result = kept.assign(variables).assign_coords(
        category=text_coordinate(list(categories), "category", "category of prompts")
    )
    names = [restored(str(kept.prompt_category.values[row])) for row in used]
    contrasts = pairwise_contrasts(
        result.prompt_centroid.values[used],
        names,
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
    )
    result = result.merge(contrast_variables(contrasts, "the depth at which the subject is needed", "block"))
    out = result.sizes["prompt"] - len(used)
    cautions = [f"{out} of {result.sizes['prompt']} prompts are left out."] if out else []
    if int(kept.prompts_given) > result.sizes["prompt"]:
        cautions.append(
            f"{result.sizes['prompt']} of {int(kept.prompts_given)} prompts were cut: --set cut_prompts says how many."
        )
    return result.assign_attrs(prompts=len(used)), cautions


def _categories(kept: xr.Dataset, used: np.ndarray) -> Mapping[str, np.ndarray]:
    """Places among the used prompts: of all, and of each category."""
    names = kept.prompt_category.values[used]
    return {ALL: np.arange(len(used))} | {
        restored(str(name)): np.flatnonzero(names == name) for name in dict.fromkeys(names)
    }


def _by_category(
    kept: xr.Dataset, units: Units, used: np.ndarray, settings: Settings
) -> dict[str, xr.Variable]:
    subject = [restored(str(name)) for name in kept.prompt_edges.values].index(SUBJECT)
    divergence, loss = units.divergence[:, subject, 0, 0], units.loss[:, subject, 0, 0]
    places = centroid(divergence)
    groups = _categories(kept, used).values()

    def means(values: np.ndarray) -> Any:
        return stacked([bootstrap_mean(values[some], **how_of(settings)) for some in groups])

    everywhere = np.full(kept.sizes["prompt"], np.nan)
    everywhere[used] = places
    return (
        interval_variables(
            "subject_effect",
            means(divergence),
            "category layer",
            "divergence with the subject cut off",
            "nat",
        )
        | interval_variables(
            "subject_lost",
            means(loss),
            "category layer",
            "log-probability of the answer that is lost with the subject cut off",
            "nat",
        )
        | interval_variables(
            "subject_centroid",
            means(places),
            "category",
            "centroid of depth of the divergence with the subject cut off",
            "block",
        )
        | {
            "prompt_centroid": quantity(
                everywhere,
                "prompt",
                "centroid of depth of the divergence with the subject cut off, of one prompt",
                "block",
            )
        }
    )


def farthest_seen(result: xr.Dataset) -> int:
    """Place of the farthest range that some layer can see; windows may be narrower than the last."""
    bands = result.effect.isel(fate=0, window=0, edges=slice(0, int(result.attrs["bands"])))
    seen = np.flatnonzero(np.isfinite(bands.transpose("edges", "layer").values).any(axis=1))
    return int(seen[-1]) if len(seen) else 0


def main_curve(result: xr.Dataset) -> xr.Dataset:
    """Divergence with the farthest range cut off that any layer sees, or the subject, beside keys cut at random."""
    passages = "effect" in result
    prefix, edges = ("", "edges") if passages else ("prompt_", "prompt_edges")
    row = farthest_seen(result) if passages else 0
    here = result.isel({edges: row, "window": 0}, drop=True)
    curve = as_curve(here.isel(fate=0, drop=True), f"{prefix}effect")
    name = restored(str(result[edges].values[row]))
    cut = context_of_range(name) if passages else name
    curve["value"].attrs["long_name"] = f"divergence that cutting off {cut} brings about"
    return curve.assign(null=here[f"{prefix}control_effect"].reset_coords(drop=True))
