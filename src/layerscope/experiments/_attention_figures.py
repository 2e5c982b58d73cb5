"""Attention patterns in pictures, in the order in which a reader wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import text_coordinate
from layerscope.evidence.curves import as_curve
from layerscope.experiments._attention_claims import ALL, NO_SINKS
from layerscope.plots import NamedHeatmap, curve_over_depth, curves_with_phases, heatmap_gallery

_MOST_LINES = 6
_HEADS = {
    "head_first_token_share": "first token",
    "head_previous_token_share": "previous token",
    "head_own_token_share": "the token itself",
    "head_duplicate_share": "earlier copies of the token",
    "head_induction_share": "what followed earlier copies",
    "head_repeat_duplicate_share": "same token, random text read twice",
    "head_repeat_induction_share": "what followed, random text read twice",
    "head_dependency_share": "dependencies",
    "head_variability": "deviation from the mean pattern",
}


def draw(result: xr.Dataset) -> dict[str, Any]:
    """First token, distances, span, content or position, syntax, and every head."""
    figures: dict[str, Any] = {"how much attention rests on the first token": _resting(result)}
    if np.isfinite(result.fixed_distance).any():
        figures["how far do heads look?"] = _definitions(
            result, "fixed_distance", "Mean distance at fixed queries, which stand equally deep in all texts."
        )
        figures["at which distances does attention fall?"] = _bins(
            result, ALL, "uniform", "uniform attention, each distance in its colour"
        )
        if "own_mean_bin_share" in result:
            figures["how far would positions alone look?"] = _positions_alone(result)
            figures["at which distances do heads read, by value norm?"] = _bins(
                result,
                "by value norm",
                "own_mean",
                "the head's mean pattern, which knows positions and no words. Where both coincide, "
                "words do not move the average",
            )
    figures["over how many tokens does attention spread?"] = _definitions(
        result, "span", "Exponential of the entropy of each query's attention, mean over queries and heads."
    )
    figures["content or position?"] = _definitions(
        result,
        "variability",
        "0: the same pattern whatever the words are. Half the summed deviation over the attention that counts.",
    )
    figures["how wide would positions alone spread attention?"] = _beside_positions(result, "span")
    figures["do heads look at copies, or at where copies stand?"] = _beside_positions(
        result, "duplicate_share"
    )
    if "dependency_share" in result:
        figures["does attention follow syntax?"] = _syntax(result)
        figures["attention by part of speech"] = _tags(result)
    figures["every head"] = _heads(result)
    return figures


def _resting(result: xr.Dataset) -> Any:
    curves = as_curve(result, "resting_share").rename(sink_measure="row")
    null = result.uniform_first_token_share.sel(definition=ALL, drop=True).assign_attrs(name="uniform")
    ends = as_curve(result, "block_end").sel(sink_measure="first token", threshold=0.3, drop=True)
    caption = (
        "Mean over heads, with bands over passages. Dashed: the first token's share of uniform attention. "
        "Dotted: where the share on the first token passes 0.3."
    )
    known = bool(np.isfinite(ends["value"]))
    begins = (ends + 0.5).expand_dims("begin") if known else None
    if begins is None:
        return curve_over_depth(curves.assign(null=null), caption=caption.rsplit(" Dotted", 1)[0])
    return curves_with_phases(curves.assign(null=null), begins, caption=caption)


def _definitions(result: xr.Dataset, name: str, caption: str) -> Any:
    curves, caption = _told_apart(as_curve(result, name).rename(definition="row"), caption)
    if f"uniform_{name}" in result:
        null = result[f"uniform_{name}"].sel(definition=ALL, drop=True).reset_coords(drop=True)
        curves["null"] = null.assign_attrs(name="uniform")
        caption += " Dashed: uniform attention, all keys."
    return curve_over_depth(curves, caption=caption)


def _beside_positions(result: xr.Dataset, name: str) -> Any:
    """A statistic among the first tokens; dashed, what each head's mean pattern over texts would give."""
    curves = as_curve(result, f"early_{name}").rename(definition="row")
    null = result[f"own_mean_early_{name}"].reset_coords(drop=True).rename(definition="row")
    null = null.assign_attrs(name="mean pattern")
    curves, caption = _told_apart(
        curves.assign(null=null),
        "Mean over heads, first tokens of all passages. Dashed: the head's mean pattern over passages in the "
        "place of its pattern, which knows positions and no words. Where both coincide, positions decide.",
    )
    return curve_over_depth(curves, caption=caption)


def _told_apart(curves: xr.Dataset, caption: str) -> tuple[xr.Dataset, str]:
    """Without a line that another would hide: where no token is a sink, leaving sinks out leaves out nothing."""
    names = [str(name) for name in curves.row.values]
    values = curves["value"].transpose("row", ...).values
    every, sinks = values[names.index(ALL)], values[names.index(NO_SINKS)]
    if not np.allclose(every, sinks, rtol=1e-4, atol=1e-6, equal_nan=True):
        return curves, caption
    kept = [place for place, name in enumerate(names) if name != NO_SINKS]
    return curves.isel(
        row=kept
    ), f"{caption} No token is a sink by its norm: without sinks all is as for all keys."


def _positions_alone(result: xr.Dataset) -> Any:
    curves = as_curve(result, "fixed_distance").rename(definition="row")
    null = result.own_mean_fixed_distance.reset_coords(drop=True).rename(definition="row")
    null = null.assign_attrs(name="mean pattern")
    curves, caption = _told_apart(
        curves.assign(null=null),
        "Mean distance at fixed queries. Dashed: the head's mean pattern over some of the passages in the place of "
        "its pattern. Where all keys weigh alike it has the same distance, but for those passages: by value norm "
        "the two may differ. Where they do not, words do not move the average.",
    )
    return curve_over_depth(curves, caption=caption)


def _bins(result: xr.Dataset, definition: str, null: str, whose: str) -> Any:
    chosen_keys = result.sel(definition=definition, drop=True)
    curves = as_curve(chosen_keys, "bin_share")
    curves["null"] = chosen_keys[f"{null}_bin_share"].where(np.isfinite(curves["value"]))
    curves["null"].attrs["name"] = "mean pattern" if null == "own_mean" else null
    reached = result.uniform_bin_share.sel(definition=ALL).max("layer").values > 0
    filled = reached & np.isfinite(curves["value"].transpose("distance_bin", "layer").values).any(axis=1)
    chosen = np.flatnonzero(filled)[-_MOST_LINES:]  # the token itself is the first to go
    curves = curves.isel(distance_bin=chosen).rename(distance_bin="row")
    names = [f"{name} back" for name in curves.row.values]
    return curve_over_depth(
        curves.assign_coords(row=text_coordinate(names, "row", "distance")),
        caption=f"Share of attention by distance in tokens, at fixed queries, mean over heads. Dashed: {whose}."
        + ("" if np.isfinite(curves["value"]).all() else " A distance beyond a layer's window has no value."),
    )


def _syntax(result: xr.Dataset) -> Any:
    chosen = result.sel(definition="without first token", drop=True)
    rows = {
        "the model": as_curve(chosen, "dependency_share"),
        "first tokens": _bare(chosen.early_dependency_share),
        "first tokens, mean pattern of the head": _bare(chosen.own_mean_early_dependency_share),
    }
    curves = xr.concat(list(rows.values()), dim="row", join="outer").assign_coords(
        row=text_coordinate(list(rows), "row", "whose attention")
    )
    curves["value"].attrs = {"long_name": "share of attention along dependencies", "units": "1"}
    curves["null"] = chosen.uniform_dependency_share.reset_coords(drop=True).assign_attrs(name="uniform")
    return curve_over_depth(
        curves,
        caption="Without the first token, mean over heads. The mean pattern knows positions only. Dashed: uniform.",
    )


def _bare(values: xr.DataArray) -> xr.Dataset:
    values = values.reset_coords(drop=True)
    return xr.Dataset({"value": values, "low": values * np.nan, "high": values * np.nan})


def _tags(result: xr.Dataset) -> Any:
    chosen = result.sel(definition="without first token", drop=True)
    uniform = chosen.uniform_tag_share.mean("layer")
    frequent = np.sort(np.argsort(-uniform.values)[:_MOST_LINES])
    curves = as_curve(chosen.isel(tag=frequent), "tag_share")
    curves = (curves / chosen.uniform_tag_share.isel(tag=frequent).reset_coords(drop=True)).rename(tag="row")
    curves["value"].attrs = {
        "long_name": "attention on a part of speech over that of uniform attention",
        "units": "1",
    }
    return curve_over_depth(
        curves,
        caption="1: as much as uniform attention gives it. The most frequent parts of speech; without the first token.",
    )


def _heads(result: xr.Dataset) -> Any:
    gallery = []
    for name, shown in _HEADS.items():
        for definition in (ALL, "by value norm") if name in result else ():
            values = result[name].sel(definition=definition, drop=True)
            if name == "head_first_token_share" or np.isfinite(values).any():
                gallery.append(
                    NamedHeatmap(
                        name=shown,
                        recovery=values.transpose("head", "layer").rename(head="token"),
                        tokens=[f"H{head}" for head in range(result.sizes["head"])],
                        category=definition,
                    )
                )
    most = float(np.nanmax(result.head_first_token_share.sel(definition=ALL).values))
    return heatmap_gallery(
        gallery,
        caption="Share of each head's attention; choose the kind of key above. "
        f"On the first token (all keys) the largest is {most:.1%}.",
    )
