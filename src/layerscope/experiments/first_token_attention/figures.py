"""What first_token_attention shows: along the text, by layer, by head, and by what stands first."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_curve, settings_of, text_coordinate
from layerscope.plots import NamedHeatmap, curve_over_depth, curves_along_text, heatmap_gallery, leading

_FALLS, _LATE = "Does attention to the first token fall?", "Late in the text, by layer"
_MOST_LAYERS = 5
_SMALLEST = 1e-4
"""Share of attention below which it is as good as nothing."""


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Along the text by what stands first and by layer, late in it, and every head."""
    there = np.isfinite(result.overall_along).any("stretch")
    read = result.isel(reading=np.flatnonzero(there.values))
    main = result.attrs["main_reading"]
    figures = {_FALLS: _overall(read), _LATE: _late(read)}
    along = f"Along the text by layer, {main}"
    if main:
        figures[along] = _layers(read.sel(reading=main, drop=True))
    figures |= {
        "Late in the text, every head": _heads(read),
        "Along the text, every layer": _positions(read),
    }
    return leading(figures, (_FALLS, _LATE, along))


def _over_passages(result: xr.Dataset) -> str:
    return f"{result.sizes['passage']} passages"


def _late_part(result: xr.Dataset) -> float:
    return float(settings_of(result).get("late_share", 0.5))


def _overall(result: xr.Dataset) -> Any:
    curves = as_curve(result, "overall_along").rename(reading="row")
    curves["null"] = result.uniform_along.isel(reading=0, drop=True).reset_coords(drop=True)
    return curves_along_text(
        curves,
        "stretch",
        caption=f"Mean over layers, heads and {_over_passages(result)}, bootstrap bands. Readings that stay apart late "
        "in the text: what stands first matters.",
    )


def _layers(result: xr.Dataset) -> Any:
    n = result.sizes["layer"]
    chosen = np.unique(np.linspace(0, n - 1, min(n, _MOST_LAYERS)).round().astype(int))
    curves = as_curve(result.isel(layer=chosen), "share_along").map(lambda share: share.clip(min=_SMALLEST))
    curves["value"].attrs = dict(result.share_along.attrs)
    curves["null"] = result.uniform_along.reset_coords(drop=True)
    names = text_coordinate([f"layer {layer}" for layer in result.layer.values[chosen]], "row", "layer")
    curves = curves.rename(layer="row").assign_coords(row=names)
    return curves_along_text(
        curves,
        "stretch",
        log=True,
        caption=f"Mean over heads and {_over_passages(result)}, bootstrap bands. Far above uniform attention: an "
        f"attention sink. Drawn at {_SMALLEST:g} where below.",
    )


def _late(result: xr.Dataset) -> Any:
    curves = as_curve(result, "late_share").rename(reading="row")
    null = result.uniform_late_share.isel(reading=0, drop=True)
    null = null.expand_dims(layer=result.layer.values).reset_coords(drop=True)
    curves["null"] = null.assign_attrs(name="uniform")
    return curve_over_depth(
        curves,
        caption=f"Last {_late_part(result):.0%} of the text, mean over heads and {_over_passages(result)}, bootstrap "
        "bands. Look for layers in which only one reading rises: they rest on that token.",
    )


def _heads(result: xr.Dataset) -> Any:
    return heatmap_gallery(
        [
            NamedHeatmap(
                name=str(name),
                recovery=result.head_late_share.sel(reading=name, drop=True)
                .transpose("head", "layer")
                .rename(head="token"),
                tokens=[f"H{head}" for head in range(result.sizes["head"])],
            )
            for name in result.reading.values
        ],
        caption=f"Mean over {_over_passages(result)}. A share near 1: the head rests on the first token (attention "
        f"sink). The largest share is {float(result.head_late_share.max()):.1%}.",
    )


def _positions(result: xr.Dataset) -> Any:
    """Every stretch of the text as a row."""
    figure = heatmap_gallery(
        [
            NamedHeatmap(
                name=str(name),
                recovery=result.share_along.sel(reading=name, drop=True)
                .transpose("stretch", "layer")
                .rename(stretch="token"),
                tokens=[f"{position:.0f}" for position in result.stretch.values],
            )
            for name in result.reading.values
        ],
        caption=f"Share on the first token, mean over heads and {_over_passages(result)}. Rows: stretches of the text.",
    )
    return figure.update_yaxes(title="position in the text [tokens]")
