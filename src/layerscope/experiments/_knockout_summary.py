"""From kept effects to maps with intervals and controls, centroids of depth, and the index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.experiments._coordinates import groups_along, text_coordinate
from layerscope.experiments._distances import cautions_of_unread
from layerscope.experiments._groups import per_unit
from layerscope.experiments._knockout_items import SUBJECT
from layerscope.experiments._summaries import as_curve, contrast_variables, interval_variables, stacked
from layerscope.maths.arrays import divide
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.depth_profile import apart, centroid
from layerscope.maths.max_statistic import compare_pairs
from layerscope.maths.permutation import pairwise_contrasts
from layerscope.maths.ratios import bootstrap_ratio
from layerscope.results.schema import quantity, write_json
from layerscope.results.words import restored

if TYPE_CHECKING:
    from layerscope.experiments._contract import Earlier
    from layerscope.experiments.attention_knockout import Settings

LEVEL = 0.05
ALL = "all prompts"
_LEAST_MASS = 1e-4
"""Mean attention below which no effect is divided by it."""

_SAID = {"": "actual next token", "prompt_": "answer"}


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


@dataclass(frozen=True, eq=False)
class _Units:
    """Means over what was kept of each passage or prompt, NaN where a layer has no such edge.

    Attributes:
        prefix: of names of variables.
        edges: name of the dimension of sets.
        divergence, loss: [unit edges fate window layer].
        mass, control, control_mass: [unit edges window layer].
    """

    prefix: str
    edges: str
    divergence: np.ndarray
    loss: np.ndarray
    mass: np.ndarray
    control: np.ndarray
    control_mass: np.ndarray

    @classmethod
    def of(cls, kept: xr.Dataset, rows: list[np.ndarray], prefix: str, edges: str) -> _Units:
        def mean(name: str) -> np.ndarray:
            values = kept[prefix + name].values.astype(np.float64)
            if name.startswith("control"):  # [unit edges window sample layer]: samples first
                values = per_unit(np.moveaxis(values, 3, 0), [np.arange(values.shape[3])])[0]
            return per_unit(values, rows)

        names = ("divergence", "loss", "mass", "control_divergence", "control_mass")
        return cls(prefix, edges, *(mean(name) for name in names))


def _how(settings: Settings) -> dict[str, Any]:
    return {"seed": settings.seed, "level": settings.level, "resamples": settings.resamples}


# -- maps -----------------------------------------------------------------------------------------------


def _maps(units: _Units, settings: Settings) -> dict[str, xr.Variable]:
    how, said = _how(settings), _SAID[units.prefix]
    by_fate, by_cut = f"{units.edges} fate window layer", f"{units.edges} window layer"
    excess = units.divergence[:, :, 0] - units.control
    relative = _relative(units.divergence[:, :, 0], units.control)
    known = ~np.isnan(units.divergence)
    mass = np.broadcast_to(units.mass[:, :, None], known.shape)
    enough = known & (np.nan_to_num(mass).mean(axis=0) >= _LEAST_MASS)
    found = (
        interval_variables(
            "effect",
            bootstrap_mean(units.divergence, **how),
            by_fate,
            "divergence that cutting brings about",
            "nat",
        )
        | interval_variables(
            "lost",
            bootstrap_mean(units.loss, **how),
            by_fate,
            f"log-probability of the {said} that is lost",
            "nat",
        )
        | interval_variables(
            "control_effect",
            bootstrap_mean(units.control, **how),
            by_cut,
            "divergence with keys cut at random",
            "nat",
        )
        | interval_variables(
            "excess",
            bootstrap_mean(excess, **how),
            by_cut,
            "divergence beyond that of keys cut at random",
            "nat",
        )
        | interval_variables(
            "relative_excess",
            bootstrap_mean(relative, **how),
            by_cut,
            "divergence less that of keys cut at random, over the sum of both",
        )
        | interval_variables(
            "removed",
            bootstrap_mean(units.mass, **how),
            by_cut,
            "attention that was cut, mean over heads",
        )
        | interval_variables(
            "control_removed",
            bootstrap_mean(units.control_mass, **how),
            by_cut,
            "attention that was cut at random, mean over heads",
        )
        | interval_variables(
            "effect_per_mass",
            bootstrap_ratio(np.where(enough, units.divergence, 0), np.where(enough, mass, 0), **how),
            by_fate,
            "divergence over the attention that was cut",
            "nat",
        )
    )
    p = compare_pairs(units.loss, seed=settings.seed)
    found["lost_p"] = quantity(p, by_fate, "p of the lost log-probability, adjusted for the whole map")
    found["relative_excess_p"] = quantity(
        compare_pairs(_with_nothing(relative), seed=settings.seed),
        by_cut,
        "p of the relative excess, adjusted for the whole map",
    )
    found |= _agreement(units, p, by_cut)
    return {f"{units.prefix}{name}": variable for name, variable in found.items()}


def _relative(divergence: np.ndarray, control: np.ndarray) -> np.ndarray:
    """(D − C) / (D + C), from −1 to 1: divergences of one cell differ by orders of magnitude between texts.

    0 where neither moves anything; NaN where there is no control.
    """
    both = divergence + control
    return np.asarray(np.where(both == 0, 0.0, divide(divergence - control, both)))


def _with_nothing(excess: np.ndarray) -> np.ndarray:
    """Units without a control count as no excess, where at least half of the units have one.

    No sign makes 0 larger, so the test stays valid; it finds less.
    """
    known = ~np.isnan(excess)
    enough = known.mean(axis=0) >= 0.5
    return np.where(known | ~enough, excess, 0.0)


def _agreement(units: _Units, p: np.ndarray, dims: str) -> dict[str, xr.Variable]:
    """How far the fates agree: smallest over largest mean divergence, and how many tell the same loss."""
    mean = per_unit(units.divergence, [np.arange(len(units.divergence))])[0]  # [edges fate window layer]
    known = ~np.isnan(mean)
    smallest = np.where(known, mean, np.inf).min(axis=1)
    largest = np.where(known, mean, -np.inf).max(axis=1)
    several = known.sum(axis=1) > 1
    share = divide(np.where(several, smallest, 0), np.where(several, largest, 0))
    sign = np.sign(per_unit(units.loss, [np.arange(len(units.loss))])[0])
    told = (np.nan_to_num(p, nan=1) < LEVEL) & (sign == sign[:, :1])
    return {
        "agreement": quantity(share, dims, "smallest over largest divergence among the fates"),
        "fates_told": quantity(
            told.sum(axis=1), dims, "fates whose loss is told from 0, with the sign of the first"
        ),
        "fates_here": quantity(known.sum(axis=1), dims, "fates that are possible here"),
    }


# -- passages -------------------------------------------------------------------------------------------


def _passages(kept: xr.Dataset, settings: Settings) -> tuple[xr.Dataset, list[str]]:
    rows = groups_along(kept, "token_passage")
    units = _Units.of(kept, list(rows.values()), "", "edges")
    bands = (kept.sizes["edges"] + 1) // 2
    variables = _maps(units, settings) | _indices(units, bands, settings)
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
        cautions.append("Texts begin without BOS: the first token is an ordinary word, and no resting place.")
    return result.assign_attrs(passages=len(rows), bands=bands), cautions


def _blind(divergence: np.ndarray, layers: np.ndarray) -> str:
    """Layers without any edge, where others have some."""
    empty = np.isnan(divergence).all(axis=0)
    return ", ".join(str(layer) for layer in layers[empty]) if not empty.all() else ""


def _indices(units: _Units, bands: int, settings: Settings) -> dict[str, xr.Variable]:
    how = _how(settings)
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
            bootstrap_mean(apart(index(of_each[:, :, 0]), index(of_control)), **how),
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
    units = _Units.of(kept, [np.array([row]) for row in used], "prompt_", "prompt_edges")
    variables = _maps(units, settings) | _by_category(kept, units, used, settings)
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
    kept: xr.Dataset, units: _Units, used: np.ndarray, settings: Settings
) -> dict[str, xr.Variable]:
    subject = [restored(str(name)) for name in kept.prompt_edges.values].index(SUBJECT)
    divergence, loss = units.divergence[:, subject, 0, 0], units.loss[:, subject, 0, 0]
    places = centroid(divergence)
    groups = _categories(kept, used).values()

    def means(values: np.ndarray) -> Any:
        return stacked([bootstrap_mean(values[some], **_how(settings)) for some in groups])

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
    return curve.assign(null=here[f"{prefix}control_effect"].reset_coords(drop=True))
