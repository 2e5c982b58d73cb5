"""What attention_patterns shows, in the order in which a reader wants it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_curve, text_coordinate
from layerscope.experiments.attention_patterns.conclude.block import FIRST_TOKEN, MAIN_THRESHOLD
from layerscope.maths.attention import DEFINITIONS
from layerscope.plots import NamedHeatmap, curve_over_depth, curves_with_phases, heatmap_gallery, leading

ALL, NO_FIRST, NO_SINKS, BY_VALUE = DEFINITIONS
_MOST_LINES = 6
_NONE = 1e-3
"""Share of attention that is as good as nothing."""
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

_LEAD = (
    "Attention on the first token, by layer",
    "How far back do heads attend?",
    "Content or position?",
)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """First token, distances, span, content or position, syntax, and every head."""
    figures: dict[str, Any] = {"Attention on the first token, by layer": _resting(result)}
    if np.isfinite(result.fixed_distance).any():
        figures |= _distances(result)
    figures |= {
        "Over how many tokens does attention spread?": _definitions(
            result, "span", f"Exponential of the entropy of each query's attention, {_means(result)}."
        ),
        "Content or position?": _definitions(
            result,
            "variability",
            f"0: the same pattern whatever the words are. {_means(result).capitalize()}.",
        ),
        "Span beside that of positions alone": _beside_positions(result, "span"),
        "Attention to copies beside positions alone": _beside_positions(result, "duplicate_share"),
    }
    if "dependency_share" in result:
        figures |= {
            "Does attention follow syntax?": _syntax(result),
            "Attention by part of speech": _tags(result),
        }
    return leading(figures | {"Every head": _heads(result)}, _LEAD)


def _distances(result: xr.Dataset) -> dict[str, Any]:
    figures = {
        "How far back do heads attend?": _definitions(
            result,
            "fixed_distance",
            f"Mean distance at queries that stand equally deep in all texts, {_means(result)}.",
        ),
        "At which distances does attention fall?": _bins(result, ALL, "uniform", "uniform attention."),
    }
    if "own_mean_bin_share" in result:
        figures |= {
            "Distance beside that of positions alone": _positions_alone(result),
            "Distances by value norm beside positions alone": _bins(
                result,
                BY_VALUE,
                "own_mean",
                "the heads' mean patterns. Where both coincide, words do not move the average.",
            ),
        }
    return figures


def _means(result: xr.Dataset) -> str:
    return f"mean over heads and {result.sizes['passage']} passages, bootstrap bands"


def _resting(result: xr.Dataset) -> Any:
    curves = as_curve(result, "resting_share").rename(sink_measure="row")
    null = result.uniform_first_token_share.sel(definition=ALL, drop=True).assign_attrs(name="uniform")
    ends = as_curve(result, "block_end").sel(sink_measure=FIRST_TOKEN, threshold=MAIN_THRESHOLD, drop=True)
    caption = f"{_means(result).capitalize()}. Far above uniform attention: an attention sink."
    if float(curves["value"].isel(row=1).max()) < _NONE:
        curves = curves.isel(row=[0, *range(2, curves.sizes["row"])])
        caption += " No token is a sink by its norm."
    if not np.isfinite(ends["value"]):
        return curve_over_depth(curves.assign(null=null), caption=caption)
    return curves_with_phases(
        curves.assign(null=null),
        (ends + 0.5).expand_dims("begin"),
        caption=f"{caption} Dotted: where it passes {MAIN_THRESHOLD:g}.",
    )


def _definitions(result: xr.Dataset, name: str, caption: str) -> Any:
    curves, caption = _without_hidden_line(as_curve(result, name).rename(definition="row"), caption)
    if f"uniform_{name}" in result:
        null = result[f"uniform_{name}"].sel(definition=ALL, drop=True).reset_coords(drop=True)
        curves["null"] = null.assign_attrs(name="uniform")
    return curve_over_depth(curves, caption=caption)


def _beside_positions(result: xr.Dataset, name: str) -> Any:
    """A statistic among the first tokens; dashed, what each head's mean pattern over texts would give."""
    curves = as_curve(result, f"early_{name}").rename(definition="row")
    null = result[f"own_mean_early_{name}"].reset_coords(drop=True).rename(definition="row")
    null = null.assign_attrs(name="mean pattern")
    curves, caption = _without_hidden_line(
        curves.assign(null=null),
        f"First tokens of all passages, {_means(result)}. Dashed: the heads' mean patterns. Where both coincide, "
        "positions decide.",
    )
    return curve_over_depth(curves, caption=caption)


def _without_hidden_line(curves: xr.Dataset, caption: str) -> tuple[xr.Dataset, str]:
    """Without a line that another would hide: where no token is a sink, leaving sinks out leaves out nothing."""
    names = [str(name) for name in curves.row.values]
    values = curves["value"].transpose("row", ...).values
    every, sinks = values[names.index(ALL)], values[names.index(NO_SINKS)]
    if not np.allclose(every, sinks, rtol=1e-4, atol=1e-6, equal_nan=True):
        return curves, caption
    kept = [place for place, name in enumerate(names) if name != NO_SINKS]
    return curves.isel(row=kept), f"{caption} No token is a sink by its norm."


def _positions_alone(result: xr.Dataset) -> Any:
    curves = as_curve(result, "fixed_distance").rename(definition="row")
    null = result.own_mean_fixed_distance.reset_coords(drop=True).rename(definition="row")
    null = null.assign_attrs(name="mean pattern")
    curves, caption = _without_hidden_line(
        curves.assign(null=null),
        f"Mean distance at fixed queries, {_means(result)}. Dashed: the heads' mean patterns over some passages. "
        "Where both coincide by value norm, words do not move the average.",
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
        caption=f"Share of attention by distance in tokens, at fixed queries, {_means(result)}. Dashed: {whose}"
        + ("" if np.isfinite(curves["value"]).all() else " A distance beyond a layer's window has no value."),
    )


def _syntax(result: xr.Dataset) -> Any:
    chosen = result.sel(definition=NO_FIRST, drop=True)
    rows = {
        "the model": as_curve(chosen, "dependency_share"),
        "first tokens": _bare(chosen.early_dependency_share),
        "first tokens, mean pattern": _bare(chosen.own_mean_early_dependency_share),
    }
    curves = xr.concat(list(rows.values()), dim="row", join="outer").assign_coords(
        row=text_coordinate(list(rows), "row", "whose attention")
    )
    curves["value"].attrs = {"long_name": "share of attention along dependencies", "units": "1"}
    curves["null"] = chosen.uniform_dependency_share.reset_coords(drop=True).assign_attrs(name="uniform")
    return curve_over_depth(
        curves,
        caption="Without the first token, mean over heads, bootstrap bands over documents. Above uniform attention and "
        "the mean pattern, which depends on positions only: attention follows syntax.",
    )


def _bare(values: xr.DataArray) -> xr.Dataset:
    values = values.reset_coords(drop=True)
    return xr.Dataset({"value": values, "low": values * np.nan, "high": values * np.nan})


def _tags(result: xr.Dataset) -> Any:
    chosen = result.sel(definition=NO_FIRST, drop=True)
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
        caption="1: as much as uniform attention gives it. The most frequent parts of speech, without the first token; "
        "mean over heads, bootstrap bands over documents.",
    )


def _heads(result: xr.Dataset) -> Any:
    gallery = []
    for name, shown in _HEADS.items():
        for definition in (ALL, BY_VALUE) if name in result else ():
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
