"""Who writes the answer, in pictures: heads by layer, and what attention and MLPs write layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_curve, as_rows, level_of
from layerscope.evidence.groups import ALL_PROMPTS
from layerscope.plots import NamedHeatmap, curve_over_depth, heatmap_gallery
from layerscope.results.escaping import restored


def direct_figures(result: xr.Dataset) -> dict[str, Any]:
    """Heads and layers that write the answer, by category where there are several."""
    if "head_beyond_other" not in result:
        return {}
    specific = bool(np.isfinite(result.attention_beyond_other).any())
    kind = "beyond_other" if specific else "to_answer"
    figures: dict[str, Any] = {}
    if np.isfinite(result[f"head_{kind}"]).any():
        figures["Which heads write the answer?"] = _heads(result, f"head_{kind}")
    if np.isfinite(result[f"attention_{kind}"]).any():
        figures["Which layers write the answer?"] = _layers(result, kind)
    return figures


def _heads(result: xr.Dataset, name: str) -> Any:
    labels = [f"H{head}" for head in result["head"].values]
    maps = []
    for group in map(str, result.answered.values):
        values = result[name].sel(answered=group, drop=True).transpose("head", "layer")
        shown = values.rename(head="token").drop_vars("token").reset_coords(drop=True)
        shown.attrs = dict(result[name].attrs)
        maps.append(NamedHeatmap(name=restored(group), recovery=shown, tokens=labels))
    figure = heatmap_gallery(
        maps,
        scale="effect",
        caption="Each head's output through the output projection, the final norm (scale frozen) and the unembedding; "
        "mean over prompts. Heads and biases sum to what attention writes.",
    )
    figure.update_yaxes(title="head")
    return figure


def _layers(result: xr.Dataset, kind: str) -> Any:
    n = int(result[f"attention_{kind}_n"].sel(answered=ALL_PROMPTS).max())
    every = result.sel(answered=ALL_PROMPTS)
    rows = {
        label: as_curve(every, f"{part}_{kind}")
        for label, part in (("attention", "attention"), ("MLP", "mlp"))
    }
    return curve_over_depth(
        as_rows(rows, result[f"attention_{kind}"].attrs["long_name"], "logit"),
        caption=f"Mean over {n} prompts, {level_of(result):.0%} bootstrap bands. Above 0 a layer writes towards "
        "the answer; with embedding and biases, attention and MLPs of all layers sum to its logit.",
    )
