"""The last token's attention in pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import groups_along, text_coordinate
from layerscope.evidence.curves import as_curve
from layerscope.plots import NamedHeatmap, curve_over_depth, distribution, heatmap_gallery
from layerscope.results.words import restored

_MOST_CATEGORIES = 6
_SHOWN = ("first token", "noised tokens", "last token")
_EVERY_LAYER_HAS_A_TICK = 24


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Each row over layers by category, heads, the spike, and every prompt."""
    figures: dict[str, Any] = {}
    filled = result.isel(
        category=np.flatnonzero((result.category_attention_n > 0).any(["weighting", "row", "layer"]))
    )
    if filled.sizes["category"]:
        for row in _SHOWN:
            at = "itself" if row == "last token" else f"the {row}"
            figures[f"how much does the last token look at {at}?"] = _row(filled, row)
        figures["first and noised tokens, by value norm"] = _by_value(result)
        figures["every head, noised tokens"] = _heads(filled)
    if np.isfinite(result.spike_layer).any():
        figures["where does attention to the noised tokens spike?"] = _spikes(result, filled)
    if np.isfinite(result.prompt_transition_less_spike).any():
        figures["does the answer cross where attention spikes?"] = _crossings(result, filled)
    apart = _apart(result)
    if apart is not None:
        figures["which heads tell categories apart?"] = apart
    figures["every prompt"] = _gallery(result)
    return figures


def _row(result: xr.Dataset, row: str) -> Any:
    chosen = result.sel(weighting="attention", row=row, drop=True)
    few = result.sizes["category"] <= _MOST_CATEGORIES
    curves = as_curve(chosen, "category_attention") if few else as_curve(chosen, "overall_attention")
    # Categories differ in how many tokens are noised, and so in what uniform attention gives these.
    null = (chosen.uniform_category if few else chosen.uniform_overall).reset_coords(drop=True)
    curves["null"] = null.expand_dims(layer=result.layer.values).assign_attrs(name="uniform")
    curves["value"].attrs = {"long_name": f"attention to the {row} (logarithmic)", "units": "1"}
    return curve_over_depth(
        curves,
        log=True,
        caption="Mean over heads and prompts, with bands over prompts. Dashed: uniform attention.",
    )


def _by_value(result: xr.Dataset) -> Any:
    rows = {
        f"{row}{'' if weighting == 'attention' else ', by value'}": as_curve(
            result.sel(row=row, weighting=weighting, drop=True), "overall_attention"
        )
        for row in _SHOWN[:2]
        for weighting in result.weighting.values
    }
    curves = xr.concat(list(rows.values()), dim="row", join="exact").assign_coords(
        row=text_coordinate(list(rows), "row", "tokens and weighting")
    )
    curves["value"].attrs = {"long_name": "share of the last token's attention", "units": "1"}
    return curve_over_depth(
        curves,
        caption="By value norm: shares times the length of what the head writes if it takes that key alone.",
    )


def _heads(result: xr.Dataset) -> Any:
    chosen = result.head_attention.sel(weighting="attention", row="noised tokens", drop=True)
    return heatmap_gallery(
        [
            NamedHeatmap(
                name=restored(str(name)),
                recovery=chosen.sel(category=name, drop=True).transpose("head", "layer").rename(head="token"),
                tokens=[f"H{head}" for head in range(result.sizes["head"])],
            )
            for name in result.category.values
        ],
        caption="The last token's attention to the noised tokens, mean over prompts of the category.",
    )


def _spikes(result: xr.Dataset, filled: xr.Dataset) -> Any:
    used = _used(result, filled)
    figure = distribution(
        used.spike_layer,
        [str(name) for name in used.prompt_category.values],
        as_curve(filled, "mean_spike"),
        caption="Each point is a prompt: the layer with the largest share on the noised tokens, mean over heads.",
    )
    if result.sizes["layer"] <= _EVERY_LAYER_HAS_A_TICK:
        figure.update_xaxes(dtick=1)  # a spike stands in a layer, never between two
    return figure


def _used(result: xr.Dataset, filled: xr.Dataset) -> xr.Dataset:
    """Prompts that count, in the order of the categories, so that each has one colour in all figures."""
    order = [str(name) for name in filled.category.values]
    places = np.flatnonzero(result.left_out_because.values == "")
    return result.isel(
        prompt=sorted(places, key=lambda place: order.index(str(result.prompt_category.values[place])))
    )


def _crossings(result: xr.Dataset, filled: xr.Dataset) -> Any:
    used = _used(result, filled)
    return distribution(
        used.prompt_transition_less_spike.reset_coords(drop=True).assign_coords(prompt=used.prompt.values),
        [str(name) for name in used.prompt_category.values],
        as_curve(filled, "category_transition_less_spike"),
        caption="Each point is a prompt: the depth at which the answer crosses to the last token in the causal trace, "
        "less the middle of the block in which attention spikes. Between -0.5 and 0.5 it crosses within that block.",
    )


def _apart(result: xr.Dataset) -> Any:
    gallery = []
    if "contrast" not in result.head_p_adjusted.dims:
        return None
    for contrast in result.contrast.values:
        chosen = result.sel(contrast=contrast, kept_row="noised tokens")
        p = chosen.head_p_adjusted.transpose("head", "layer")
        if not np.isfinite(p).any():
            continue
        difference = chosen.head_difference.transpose("head", "layer").reset_coords(drop=True)
        survives = difference.where((p < 0.05).reset_coords(drop=True), 0.0)
        shown = NamedHeatmap(
            name=restored(str(contrast)),
            recovery=survives.rename(head="token").assign_attrs(difference.attrs),
            tokens=[f"H{head}" for head in range(result.sizes["head"])],
        )
        gallery.append((int((p < 0.05).sum()), shown))
    if not gallery:
        return None
    none = [one.name for surviving, one in gallery if not surviving]
    gallery.sort(key=lambda one: -one[0])  # the first to be seen is one in which there is something to see
    return heatmap_gallery(
        [one for _, one in gallery],
        scale="effect",
        caption="Difference in log attention to the noised tokens; zero where it does not survive, as a share and over "
        "what uniform attention gives them, the correction for all heads, layers, rows and pairs of categories."
        + (f" No head survives for {'; '.join(none)}." if none else ""),
    )


def _gallery(result: xr.Dataset) -> Any:
    tokens = groups_along(result, "token_prompt")
    gallery = []
    for name, category in zip(result.prompt.values, result.prompt_category.values, strict=True):
        here = result.isel(token=tokens[str(name)])
        gallery.append(
            NamedHeatmap(
                name=restored(str(name)),
                recovery=here.attention.sel(weighting="attention", drop=True)
                .mean("head")
                .assign_attrs(long_name="attention of the last token, mean over heads", units="1"),
                tokens=[str(text) for text in here.token_text.values],
                starred=np.flatnonzero(here.noised.values).tolist(),
                category=restored(str(category)),
            )
        )
    return heatmap_gallery(gallery, caption="What the last token attends to in each layer.")
