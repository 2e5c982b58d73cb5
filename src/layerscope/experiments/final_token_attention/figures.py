"""What final_token_attention shows: rows by category, heads that differ, the peak, and every prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_curve, groups_along, prompt_in_words, text_coordinate
from layerscope.evidence.wording import ALPHA
from layerscope.experiments.final_token_attention.conclude import CORRUPTED, FIRST, LAST, SAID
from layerscope.experiments.final_token_attention.measure import ATTENTION
from layerscope.plots import NamedHeatmap, curve_over_depth, distribution, heatmap_gallery, leading
from layerscope.plots.axes import depth_ticks
from layerscope.results.escaping import restored, stored

_MOST_CATEGORIES = 6
_TO = "The last token's attention to {}"
_PEAK, _CROSSOVER = (
    "Where does attention to the corrupted tokens peak?",
    "Crossover beside the peak of attention",
)
_EVERY_PROMPT = "Attention of the last token, every prompt"
_LEAD = (_TO.format(SAID[CORRUPTED]), _PEAK, _TO.format(SAID[FIRST]), _EVERY_PROMPT)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Each row over layers by category, heads, the peak, and every prompt."""
    figures: dict[str, Any] = {}
    there = (result.category_attention_n > 0).any(["weighting", "row", "layer"])
    filled = result.isel(category=np.flatnonzero(there))
    if filled.sizes["category"]:
        for row in (FIRST, CORRUPTED, LAST):
            figures[_TO.format(SAID[row])] = _row(filled, row)
        figures["Attention weighted by value norm"] = _by_value(result)
        figures["Attention to the corrupted tokens, every head"] = _heads(filled)
    if np.isfinite(result.spike_layer).any():
        figures[_PEAK] = _peaks(result, filled)
    if np.isfinite(result.prompt_transition_less_spike).any():
        figures[_CROSSOVER] = _crossings(result, filled)
    apart = _apart(result)
    if apart is not None:
        figures["Which heads differ between categories?"] = apart
    figures[_EVERY_PROMPT] = _gallery(result)
    return leading(figures, _LEAD)


def _row(result: xr.Dataset, row: str) -> Any:
    chosen = result.sel(weighting=ATTENTION, row=row, drop=True)
    few = result.sizes["category"] <= _MOST_CATEGORIES
    curves = as_curve(chosen, "category_attention" if few else "overall_attention")
    # Categories differ in how many tokens are corrupted, and so in what uniform attention gives these.
    null = (chosen.uniform_category if few else chosen.uniform_overall).reset_coords(drop=True)
    curves["null"] = null.expand_dims(layer=result.layer.values).assign_attrs(name="uniform")
    curves["value"].attrs = {"long_name": f"share of attention on {SAID[row]}", "units": "1"}
    return curve_over_depth(
        curves,
        caption=f"Mean over heads and {_prompts(result)}, bootstrap bands. Above the dashed lines heads prefer these "
        "tokens.",
    ).update_yaxes(rangemode="tozero")


def _prompts(result: xr.Dataset) -> str:
    return f"{int((result.left_out_because.values == '').sum())} prompts"


def _by_value(result: xr.Dataset) -> Any:
    rows = {
        f"{SAID[row]}{'' if weighting == ATTENTION else ', by value norm'}": as_curve(
            result.sel(row=row, weighting=weighting, drop=True), "overall_attention"
        )
        for row in (FIRST, CORRUPTED)
        for weighting in result.weighting.values
    }
    curves = xr.concat(list(rows.values()), dim="row", join="exact").assign_coords(
        row=text_coordinate(list(rows), "row", "tokens and weighting")
    )
    curves["value"].attrs = {"long_name": "share of the last token's attention", "units": "1"}
    return curve_over_depth(
        curves,
        caption=f"Mean over heads and {_prompts(result)}, bootstrap bands. By value norm: shares times the length of "
        "what the head writes if it takes that key alone. Far lower by value norm: an attention sink.",
    )


def _heads(result: xr.Dataset) -> Any:
    chosen = result.head_attention.sel(weighting=ATTENTION, row=CORRUPTED, drop=True)
    return heatmap_gallery(
        [
            NamedHeatmap(
                name=restored(str(name)),
                recovery=chosen.sel(category=name, drop=True).transpose("head", "layer").rename(head="token"),
                tokens=[f"H{head}" for head in range(result.sizes["head"])],
            )
            for name in result.category.values
        ],
        caption="The last token's attention to the corrupted tokens, mean over prompts of the category. Near 1: "
        "the head attends to the subject.",
    )


def _peaks(result: xr.Dataset, filled: xr.Dataset) -> Any:
    used = _used(result, filled)
    figure = distribution(
        used.spike_layer,
        [str(name) for name in used.prompt_category.values],
        as_curve(filled, "mean_spike"),
        caption="Each point is a prompt: the layer with the largest share on the corrupted tokens, mean over heads; "
        "below it the mean with its interval.",
    )
    last = result.sizes["layer"] - 1
    return figure.update_xaxes(range=[-0.5, last + 0.5], **depth_ticks(last, wanted=8))


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
        caption="Each point is a prompt: crossover depth in the causal trace, less the middle of the layer in which "
        "attention peaks. Between −0.5 and 0.5: crossover lies within that layer.",
    )


def _apart(result: xr.Dataset) -> Any:
    gallery = []
    if "contrast" not in result.head_p_adjusted.dims:
        return None
    for contrast in result.contrast.values:
        chosen = result.sel(contrast=contrast, kept_row=CORRUPTED)
        p = chosen.head_p_adjusted.transpose("head", "layer")
        if not np.isfinite(p).any():
            continue
        difference = chosen.head_difference.transpose("head", "layer").reset_coords(drop=True)
        significant = (p < ALPHA).reset_coords(drop=True)
        shown = NamedHeatmap(
            name=restored(str(contrast)),
            recovery=difference.where(significant, 0.0).rename(head="token").assign_attrs(difference.attrs),
            tokens=[f"H{head}" for head in range(result.sizes["head"])],
        )
        gallery.append((int(significant.sum()), shown))
    if not gallery:
        return None
    none = [one.name for many, one in gallery if not many]
    gallery.sort(key=lambda one: -one[0])  # the first to be seen is one in which there is something to see
    return heatmap_gallery(
        [one for _, one in gallery],
        scale="effect",
        caption="Difference in log attention to the corrupted tokens; zero where it is not significant, as a share and "
        "over uniform attention, after correction for all heads, layers, rows and pairs of categories."
        + (f" No head is significant for {'; '.join(none)}." if none else ""),
    )


def _gallery(result: xr.Dataset) -> Any:
    tokens = groups_along(result, "token_prompt")
    gallery = []
    for name, category in zip(result.prompt.values, result.prompt_category.values, strict=True):
        here = result.isel(token=tokens[str(name)])
        gallery.append(
            NamedHeatmap(
                name=stored(prompt_in_words(str(name), here.token_text)),
                recovery=here.attention.sel(weighting=ATTENTION, drop=True)
                .mean("head")
                .assign_attrs(long_name="attention of the last token, mean over heads", units="1"),
                tokens=[str(text) for text in here.token_text.values],
                starred=np.flatnonzero(here.noised.values).tolist(),
                category=restored(str(category)),
            )
        )
    return heatmap_gallery(
        gallery,
        caption="Which tokens the last token attends to in each layer, mean over heads.",
    )
