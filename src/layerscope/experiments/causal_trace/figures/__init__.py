"""A causal trace in pictures, in the order in which a reader wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import (
    as_curve,
    groups_along,
    largest_first,
    level_of,
    prompt_in_words,
    settings_of,
    text_coordinate,
)
from layerscope.experiments.causal_trace.figures import components, screen
from layerscope.plots import (
    NamedHeatmap,
    curve_over_depth,
    differences,
    distribution,
    heatmap_gallery,
    leading,
    rows_by_category,
)
from layerscope.results.escaping import restored, stored

_TWO_ROWS = {"noised tokens": "corrupted tokens", "last token": "last token"}
"""Rows as results store them, and as figures name them."""
_MOST_LINES, _MOST_PANELS, _MOST_PAIRS = 5, 9, 30
_CROSSING, _EACH = "Where does the last token take over?", "Crossover depth of each prompt"
_TYPICAL, _EVERY_PROMPT = "Which states recover the answer?", "Every prompt"
_LEAD = (_CROSSING, _EACH, _TYPICAL, components.CLASSES)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Recovery and crossovers by category, contrasts, and every prompt's own trace."""
    figures: dict[str, Any] = {}
    used = result.isel(prompt=np.flatnonzero(result.left_out_because.values == ""))
    filled = result.isel(category=np.flatnonzero((result.average_recovery_n > 0).any(["row", "depth"])))
    if used.sizes["prompt"] > 1:
        several = 1 < filled.sizes["category"] <= _MOST_LINES
        figures[_CROSSING] = _crossing(filled) if several else _overall(result)
        figures[_EACH] = _transitions(used, filled)
        if filled.sizes["category"] <= _MOST_PANELS:
            figures["Both rows of each category"] = _categories(filled)
    compared = result.isel(contrast=np.flatnonzero(np.isfinite(result.p_adjusted)))
    if 0 < compared.sizes["contrast"] <= _MOST_PAIRS:
        figures["Do categories differ in crossover depth?"] = _contrasts(compared)
    figures |= components.draw(result) | screen.draw(result)
    if settings_of(result).get("positions", "all") == "all":
        figures |= _of_prompts(result, used, filled)
    return leading(figures, _LEAD)


def _of_prompts(result: xr.Dataset, used: xr.Dataset, filled: xr.Dataset) -> dict[str, Any]:
    """Every prompt's own trace; in front one of each category, where there are more."""
    told = (
        "Recovery of the answer with one token's clean state restored at one depth: 0 is the corrupted run, 1 the "
        "clean one. Look for the depth from which the last token recovers the answer."
    )
    typical = _typical(used, filled)[:_MOST_LINES]
    figures = {}
    if used.sizes["prompt"]:
        figures[_TYPICAL] = heatmap_gallery(_gallery(result, used.isel(prompt=typical)), caption=told)
    if used.sizes["prompt"] > len(typical):
        figures[_EVERY_PROMPT] = heatmap_gallery(_gallery(result, used), caption=told)
    return figures


def _typical(used: xr.Dataset, filled: xr.Dataset) -> list[int]:
    """Of each category the prompt whose crossover is nearest to its mean, the latest category first."""
    found = []
    for name in largest_first(filled.mean_transition):
        members = np.flatnonzero(used.prompt_category.values == name)
        mean = float(filled.mean_transition.sel(category=name))
        apart = np.abs(used.transition_layer.values[members] - mean)
        found += [int(members[np.argmin(np.nan_to_num(apart, nan=np.inf))])] if members.size else []
    return found


def _crossing(result: xr.Dataset) -> Any:
    """Both rows of every category in one panel: the last token's solid, the corrupted tokens' dashed."""
    rows = as_curve(result, "average_recovery").transpose("category", "row", "depth")
    corrupted, last = (rows.sel(row=name, drop=True) for name in _TWO_ROWS)
    null = corrupted["value"].assign_attrs(name=_TWO_ROWS["noised tokens"])
    return curve_over_depth(
        last.assign(null=null),
        caption=f"Solid: the last token's clean state restored; dashed: the corrupted tokens'. Mean over prompts, "
        f"{_percent(result)} bootstrap bands. A category crosses over where its two lines meet.",
    )


def _categories(result: xr.Dataset) -> Any:
    rows = as_curve(result, "average_recovery").assign(n=result.average_recovery_n.reset_coords(drop=True))
    return rows_by_category(
        _two_rows(rows),
        as_curve(result, "mean_transition"),
        caption=f"Recovery of the answer with clean states restored, mean over prompts with {_percent(result)} "
        "bootstrap bands; the vertical line is the mean crossover depth.",
    )


def _two_rows(curves: xr.Dataset) -> xr.Dataset:
    named = text_coordinate(list(_TWO_ROWS.values()), "row", "tokens that are restored")
    return curves.sel(row=list(_TWO_ROWS)).assign_coords(row=named)


def _overall(result: xr.Dataset) -> Any:
    return curve_over_depth(
        _two_rows(as_curve(result, "overall_recovery")),
        caption=f"Recovery of the answer with clean states restored, mean over all prompts with {_percent(result)} "
        "bootstrap bands; too many categories for panels.",
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
        caption="Difference in mean crossover depth; permutation over prompts, Holm's correction over pairs.",
    )


def _percent(result: xr.Dataset) -> str:
    return f"{level_of(result):.0%}"


def _gallery(result: xr.Dataset, used: xr.Dataset) -> list[NamedHeatmap]:
    tokens = groups_along(result, "token_prompt")
    gallery = []
    for name, category, answer in zip(
        used.prompt.values, used.prompt_category.values, used.answer_text.values, strict=True
    ):
        here = result.isel(token=tokens[str(name)])
        gallery.append(
            NamedHeatmap(
                name=stored(prompt_in_words(str(name), here.token_text, str(answer))),
                recovery=here.recovery,
                tokens=[str(text) for text in here.token_text.values],
                starred=np.flatnonzero(here.noised.values).tolist(),
                category=restored(str(category)),
            )
        )
    return gallery
