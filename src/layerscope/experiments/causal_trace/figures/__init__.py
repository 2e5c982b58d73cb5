"""A causal trace in pictures, in the order in which a reader wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_curve, groups_along, settings_of
from layerscope.experiments.causal_trace.figures import components, screen
from layerscope.plots import (
    NamedHeatmap,
    curve_over_depth,
    differences,
    distribution,
    heatmap_gallery,
    rows_by_category,
)
from layerscope.results.words import restored, visible

TWO_ROWS = ["noised tokens", "last token"]
_MOST_PANELS, _MOST_PAIRS = 9, 30


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Rows by category, transitions, contrasts, and every prompt's own trace."""
    figures: dict[str, Any] = {}
    used = result.isel(prompt=np.flatnonzero(result.left_out_because.values == ""))
    filled = result.isel(category=np.flatnonzero((result.average_recovery_n > 0).any(["row", "depth"])))
    if used.sizes["prompt"] > 1:
        few = filled.sizes["category"] <= _MOST_PANELS
        figures["where the answer crosses to the last token"] = (
            _categories(filled) if few else _overall(result)
        )
        figures["transition depth of each prompt"] = _transitions(used, filled)
    compared = result.isel(contrast=np.flatnonzero(np.isfinite(result.p_adjusted)))
    if 0 < compared.sizes["contrast"] <= _MOST_PAIRS:
        figures["do categories differ in transition depth?"] = _contrasts(compared)
    figures |= components.draw(result) | screen.draw(result)
    gallery = _gallery(result, used) if settings_of(result).get("positions", "all") == "all" else []
    if gallery:
        figures["every prompt"] = heatmap_gallery(
            gallery,
            caption="Recovery of the answer when one token's clean state is put back at one depth. "
            "1 is the clean run, 0 the noised one.",
        )
    return figures


def _categories(result: xr.Dataset) -> Any:
    rows = as_curve(result, "average_recovery").assign(n=result.average_recovery_n.reset_coords(drop=True))
    return rows_by_category(
        rows.sel(row=TWO_ROWS),
        as_curve(result, "mean_transition"),
        caption=f"Mean over prompts with {_percent(result)} bootstrap bands. The line is the mean transition depth.",
    )


def _overall(result: xr.Dataset) -> Any:
    return curve_over_depth(
        as_curve(result, "overall_recovery").sel(row=TWO_ROWS),
        caption=f"Mean over all prompts with {_percent(result)} bootstrap bands; too many categories for panels.",
    )


def _transitions(used: xr.Dataset, result: xr.Dataset) -> Any:
    return distribution(
        used.transition_layer,
        [str(name) for name in used.prompt_category.values],
        as_curve(result, "mean_transition"),
        caption=f"Each point is a prompt; below it the mean with its {_percent(result)} interval over prompts.",
    )


def _contrasts(result: xr.Dataset) -> Any:
    columns = {
        "difference": "difference",
        "low": "difference_low",
        "high": "difference_high",
        "p_adjusted": "p_adjusted",
    }
    contrasts = xr.Dataset({name: result[source].reset_coords(drop=True) for name, source in columns.items()})
    return differences(
        contrasts,
        caption="Difference in mean transition depth; permutation over prompts, Holm's correction over pairs.",
    )


def _percent(result: xr.Dataset) -> str:
    return f"{settings_of(result).get('level', 0.95):.0%}"


def _gallery(result: xr.Dataset, used: xr.Dataset) -> list[NamedHeatmap]:
    tokens = groups_along(result, "token_prompt")
    gallery = []
    for name, category, answer in zip(
        used.prompt.values, used.prompt_category.values, used.answer_text.values, strict=True
    ):
        here = result.isel(token=tokens[str(name)])
        gallery.append(
            NamedHeatmap(
                name=f"{restored(str(name))} → {visible(restored(str(answer))).strip('·')}",
                recovery=here.recovery,
                tokens=[str(text) for text in here.token_text.values],
                starred=np.flatnonzero(here.noised.values).tolist(),
                category=restored(str(category)),
            )
        )
    return gallery
