"""What a screen by gradients estimates and misses, in pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import text_coordinate
from layerscope.experiments.causal_trace.conclude.metrics import metric_of
from layerscope.experiments.causal_trace.conclude.screen import LAST, LAST_SUBJECT, SOURCES
from layerscope.experiments.causal_trace.figures.components import lines
from layerscope.plots import curve_over_depth, differences
from layerscope.results.escaping import restored


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Estimates beside exact effects over depth, and what each screen misses."""
    if "screen_effect" not in result:
        return {}
    figures = {}
    if np.isfinite(result.screen_effect).any():
        figures["Effects estimated by gradients and measured exactly"] = _effects(result)
    if np.isfinite(result.screen_missed).any():
        figures["Which effects does a gradient screen miss?"] = _misses(result)
    return figures


def _effects(result: xr.Dataset) -> Any:
    chosen = {
        f"{place}, {source}": {"screened_row": place, "source": source}
        for place in (LAST_SUBJECT, LAST)
        for source in SOURCES
    }
    return curve_over_depth(
        lines(result, "screen_effect", chosen, "state and source"),
        caption=f"Mean change of {metric_of(result)[0]} with one token's state patched, run exactly and estimated from "
        "one backward pass; bands are bootstrap intervals over prompts.",
    )


def _misses(result: xr.Dataset) -> Any:
    names, cells = [], []
    for kind in result.kind.values:
        for method in result.screened_by.values:
            here = result.sel(kind=kind, screened_by=method)
            if int(here.screen_missed_n):
                names.append(f"{restored(str(kind))}: {restored(str(method))}")
                cells.append(here)
    columns = {
        column: xr.Variable(
            ("one",),
            np.array([float(cell[f"screen_missed{end}"]) for cell in cells]),
            result.screen_missed.attrs,
        )
        for column, end in (("difference", ""), ("low", "_low"), ("high", "_high"))
    }
    columns["p_adjusted"] = xr.Variable(("one",), np.full(len(names), np.nan))
    columns["significant"] = xr.Variable(("one",), columns["low"].values > 0)
    blind = ", ".join(
        f"{restored(str(kind))} {float(result.screen_chance.sel(kind=kind)):.0%}"
        for kind in result.kind.values
        if int(result.screen_chance_n.sel(kind=kind))
    )
    return differences(
        xr.Dataset(columns, coords={"one": text_coordinate(names, "one", "kind and method")}),
        caption=f"Share of the {int(result.screen_strongest)} patches of the largest exact effect that are not among "
        f"the screen's as many, mean over prompts with its interval. Random picks would miss: {blind}.",
    )
