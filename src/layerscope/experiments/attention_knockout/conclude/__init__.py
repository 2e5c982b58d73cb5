"""From kept effects to maps with intervals and controls, centroids of depth, and the index."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.contract import Earlier, Group
from layerscope.errors import LayerscopeError
from layerscope.evidence import Over, along, cell_by_cell, labelled, measure, named, side_by_side
from layerscope.evidence.distances import cautions_of_unread, context_of_range
from layerscope.experiments.attention_knockout.conclude.maps import Cuts, maps
from layerscope.experiments.attention_knockout.items import SUBJECT
from layerscope.experiments.attention_knockout.settings import Settings
from layerscope.maths.depth_profile import apart, centroid
from layerscope.results.escaping import restored
from layerscope.results.schema import write_json

ALL = "all prompts"


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
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
    over = Over(kept, settings, rows="token_passage")
    cuts, bands = Cuts.of(kept, over), (kept.sizes["edges"] + 1) // 2
    found = xr.merge([maps(cuts, "actual next token"), *_indices(cuts, bands)])
    result = kept.merge(found, join="exact").assign_coords(
        labelled("used_passage", map(restored, over.names), "passage with targets")
    )
    farthest = cuts.divergence.isel(edges=bands - 1, fate=0, window=0)
    cautions = [*cautions_of_unread(result), *_cautions(kept, farthest)]
    return result.assign_attrs(passages=over.n, bands=bands), cautions


def _cautions(kept: xr.Dataset, farthest: xr.DataArray) -> list[str]:
    found = []
    out = int((kept.left_out_because != "").sum())
    if out:
        found.append(f"{out} of {kept.sizes['passage']} passages are left out as too short.")
    seen = farthest.notnull().any("passage")
    if seen.any() and not seen.all():
        blind = ", ".join(str(layer) for layer in kept.layer.to_numpy()[~seen])
        found.append(
            f"Layers {blind} cannot see the farthest range (windows, or no attention): it can be needed elsewhere "
            "only, which moves its centroid."
        )
    if not kept.attrs.get("bos", 1):
        found.append(
            "Nothing stands first in these texts: their first token is an ordinary word, which heads may rest on."
        )
    return found


def _indices(cuts: Cuts, bands: int) -> list[xr.Dataset]:
    """Centroids of depth, and how much later the farthest range is needed than the nearest."""
    places = along("layer", centroid, cuts.divergence)  # [passage edges fate window]

    def far_less_near(values: xr.DataArray) -> xr.DataArray:
        far, near = (values.isel(edges=place, drop=True) for place in (bands - 1, 0))
        return cell_by_cell(apart, far, near)

    def index(values: xr.DataArray) -> xr.DataArray:
        return far_less_near(along("layer", centroid, values))

    control = index(cuts.control)
    said = "centroid of depth of the divergence"
    columns = (
        ("centroid", places, said),
        ("far_less_near", far_less_near(places), f"{said}, far less near"),
        ("far_less_near_of_control", control, "centroid of depth with random keys cut, far less near"),
        (
            "far_less_near_beyond_control",
            cell_by_cell(apart, index(cuts.compared), control),
            "far less near, less the same with random keys cut",
        ),
        (
            "far_less_near_of_mass",
            index(cuts.mass),
            "centroid of depth of the attention that was cut, far less near",
        ),
    )
    own = named(places.isel(fate=0, drop=True), "passage_centroid", f"{said}, of one passage", "layer")
    return [
        *(cuts.over.mean(named(values, name, long, "layer")) for name, values, long in columns),
        own.rename(passage="used_passage").to_dataset(),
    ]


# -- prompts --------------------------------------------------------------------------------------------


def _prompts(kept: xr.Dataset, settings: Settings, *, alone: bool) -> tuple[xr.Dataset | None, list[str]]:
    used = np.flatnonzero(kept.prompt_left_out_because == "")
    if not len(used):
        if alone:
            raise _nothing_left(kept)
        return None, [f"All {kept.sizes['prompt']} prompts are left out; only passages were cut."]
    some = kept.isel(prompt=used)
    cuts = Cuts.of(some, Over(some, settings, rows="prompt"), "prompt_")
    subject = [restored(str(name)) for name in kept.prompt_edges.to_numpy()].index(SUBJECT)
    divergence = cuts.divergence.isel(prompt_edges=subject, fate=0, window=0, drop=True)
    places = named(
        along("layer", centroid, divergence),
        "prompt_centroid",
        "the depth at which the subject is needed",
        "layer",
    )
    loss = cuts.loss.isel(prompt_edges=subject, fate=0, window=0, drop=True)
    everywhere = np.full(kept.sizes["prompt"], np.nan)
    everywhere[used] = places
    own = named(
        everywhere,
        "prompt_centroid",
        "centroid of depth of the divergence with the subject cut off, of one prompt",
        "layer",
        dims=("prompt",),
    )
    result = kept.merge(
        xr.merge(
            [
                maps(cuts, "answer"),
                _by_category(some, divergence, loss, places, settings),
                cuts.over.contrasts(places, some.prompt_category.to_numpy()),
                own,
            ]
        ),
        join="exact",
    )
    return result.assign_attrs(prompts=len(used)), _prompts_cut(kept, len(used))


def _nothing_left(kept: xr.Dataset) -> LayerscopeError:
    reason = restored(str(kept.prompt_left_out_because.to_numpy()[0]))
    return LayerscopeError(
        "no prompt is left to cut",
        found=f"{kept.sizes['prompt']} prompts, the first left out because: {reason}",
        expected="prompts whose answer is the model's most probable next token",
        hint="--set wrong=true, or layerscope check-prompts FILE --model MODEL",
    )


def _prompts_cut(kept: xr.Dataset, used: int) -> list[str]:
    every, given = kept.sizes["prompt"], int(kept.prompts_given)
    found = [f"{every - used} of {every} prompts are left out."] if used < every else []
    if given > every:
        found.append(f"{every} of {given} prompts were cut: --set cut_prompts says how many.")
    return found


def _by_category(
    some: xr.Dataset, divergence: xr.DataArray, loss: xr.DataArray, places: xr.DataArray, settings: Settings
) -> xr.Dataset:
    """What cutting the subject costs, and the depth about which it is needed, of all prompts and of each category."""
    kinds = some.prompt_category.to_numpy()
    members = {ALL: np.arange(len(kinds))} | {
        restored(str(kind)): np.flatnonzero(kinds == kind) for kind in dict.fromkeys(kinds)
    }
    cut = "with the subject cut off"
    columns = (
        (divergence, "subject_effect", f"divergence {cut}", "nat"),
        (loss, "subject_lost", f"log-probability of the answer that is lost {cut}", "nat"),
        (places, "subject_centroid", f"centroid of depth of the divergence {cut}", "layer"),
    )
    parts = {}
    for kind, rows in members.items():
        over = Over(some.isel(prompt=rows), settings, rows="prompt")
        parts[kind] = xr.merge(
            [
                over.mean(named(values.isel(prompt=rows), name, said, unit))
                for values, name, said, unit in columns
            ]
        )
    return side_by_side(parts, "category", "category of prompts")


# -- over depth -----------------------------------------------------------------------------------------


def farthest_seen(result: xr.Dataset) -> int:
    """Place of the farthest range that some layer can see; windows may be narrower than the last."""
    bands = result.effect.isel(fate=0, window=0, edges=slice(0, int(result.attrs["bands"])))
    seen = np.flatnonzero(bands.notnull().any("layer"))
    return int(seen[-1]) if len(seen) else 0


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """Divergence with the farthest range cut off that any layer sees, and with the subject cut off."""
    found = {}
    if "effect" in result:
        name = str(result.edges.to_numpy()[farthest_seen(result)])
        found["needs_far"] = _measure(
            result, "", name, context_of_range(name), "need of far context", "context"
        )
    if "prompt_effect" in result:
        name = str(result.prompt_edges.to_numpy()[0])
        found["needs_subject"] = _measure(
            result, "prompt_", name, restored(name), "need of the subject", "where information moves"
        )
    return found


def _measure(
    result: xr.Dataset, prefix: str, row: str, said: str, label: str, questions: Group
) -> xr.Dataset:
    cell = {f"{prefix}edges": row, "window": result.window.to_numpy()[0]}
    return measure(
        result,
        f"{prefix}effect",
        label=label,
        sense=f"cutting off {said} in the layer changes predictions much",
        questions=questions,
        null=result[f"{prefix}control_effect"].sel(cell),
        fate=result.fate.to_numpy()[0],
        **cell,
    ).assign_attrs(log=1)
