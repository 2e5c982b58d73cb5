"""What truncated_context shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_curve, text_coordinate
from layerscope.experiments.truncated_context.conclude.categories import FEWEST_PASSAGES, base_category
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.differences import differences
from layerscope.plots.fan import fan_over_depth
from layerscope.plots.heatmap import token_heatmap
from layerscope.plots.panels import rows_by_category
from layerscope.plots.theme import leading
from layerscope.results.escaping import stored

_TRAITS = ("pronoun", "whole word", "first piece", "middle piece", "last piece", "end of a name")

_KEPT, _REACH = "How well does each context preserve a state?", "How much context preserves a state?"
_ARRIVES, _RESCALED = "At which depth does each distance matter?", "Between floor and ceiling"
_LEAD = (_KEPT, _REACH, _ARRIVES, _RESCALED)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by name."""
    local = int(result.attrs["local"])
    figures = {
        _KEPT: _by_length(result, local),
        _RESCALED: _rescaled(result),
        f"Spread over tokens, last {local} kept": _spread(result, local),
        "Every context length": _every(result),
        _REACH: _reach(result),
        f"Categories of tokens, last {local} tokens kept": _by_category(result, traits=False),
        f"Word pieces, pronouns, names, last {local} tokens kept": _by_category(result, traits=True),
        f"Categories without sink-like tokens, last {local} kept": _without_sinks(result),
        "Categories after the first layer": _contrasts(result, local),
        "Norm of cut states": _norms(result, local),
        _ARRIVES: _arrivals(result),
    }
    if "mean_prefix_similarity" in result:
        figures["Names behind a prefix"] = _prefix(result)
    return leading({name: figure for name, figure in figures.items() if figure is not None}, _LEAD)


def _named(curve: xr.Dataset, dimension: str, names: list[str], row: str = "row") -> xr.Dataset:
    """A curve whose lines have names of their own."""
    renamed = curve.drop_vars(dimension, errors="ignore").rename({dimension: row})
    return renamed.assign_coords({row: text_coordinate(names, row, "line")})


def _lengths(result: xr.Dataset) -> list[str]:
    return [f"{k} token{'s' if k > 1 else ''}" for k in result.context_length.values]


def _by_length(result: xr.Dataset, local: int) -> Any:
    """One token, half of the local ones, the local ones, and the next length: longer ones lie on one another."""
    lengths = result.context_length.values
    wanted = {1, local // 2, local, *lengths[lengths > local][:1].tolist()}
    result = result.sel(context_length=[k for k in lengths if k in wanted])
    curve = as_curve(result, "median_similarity", null=result.median_floor)
    curve["null"].attrs["name"] = "floor"
    figure = curve_over_depth(
        _named(curve, "context_length", _lengths(result)),
        caption="Median over tokens, intervals over passages. Floor: another passage stands before the token alone.",
    )
    figure.update_yaxes(range=[min(0.0, float(np.nanmin(curve["low"].fillna(0)))), 1.02])
    return figure


def _rescaled(result: xr.Dataset) -> Any:
    several = result.context_length.values[result.context_length.values > 1]
    result = result.sel(context_length=several)
    if np.isnan(result.rescaled_similarity.values).all():
        return None
    curve = as_curve(result, "rescaled_similarity")
    # Where the token itself fixes the state, floor and ceiling meet and the ratio says nothing.
    tight = result.median_floor > 0.98
    curve = curve.where(~tight)
    below = bool((curve["value"] < -1).any())
    figure = curve_over_depth(
        _named(curve, "context_length", _lengths(result)),
        caption="0: only the token itself is the same; 1: everything is. Depths at which the floor is above 0.98 are "
        "left out."
        + (
            " Below 0 a cut changes more than another text does; values below −1 are not drawn."
            if below
            else ""
        ),
    )
    if below:
        figure.update_yaxes(range=[-1.05, 1.05])
    return figure


def _spread(result: xr.Dataset, local: int) -> Any:
    return fan_over_depth(
        result.similarity_quantile.sel(kept_tokens=local, drop=True),
        caption="Quantiles over tokens, from the lowest to the highest: the lower tail is long where some tokens need "
        "what stands far back.",
    )


def _every(result: xr.Dataset) -> Any:
    values = result.similarity_quantile.sel(quantile=0.5, drop=True)
    values.attrs = {"long_name": "median similarity with the whole context", "units": "1"}
    known = values.kept_tokens.values[np.isfinite(values).any("depth").values]
    values = values.sel(kept_tokens=known)
    labels = [stored(str(k)) for k in known]
    figure = token_heatmap(
        values.rename(kept_tokens="token").drop_vars("token"),
        labels,
        caption=f"Median over tokens; contexts above {int(_every_length(known))} were measured at some targets only.",
    )
    figure.update_yaxes(title="context kept [tokens]")
    return figure


def _reach(result: xr.Dataset) -> Any:
    curve = as_curve(result, "reach")
    if np.isnan(curve["value"].values).all():
        return None
    return curve_over_depth(
        curve,
        log=True,
        caption="Median over tokens, intervals over passages. Gaps: no context measured is enough.",
    )


def _every_length(known: np.ndarray) -> int:
    steps = np.flatnonzero(np.diff(known) > 1)
    return int(known[steps[0]] if steps.size else known[-1])


def _by_category(result: xr.Dataset, *, traits: bool) -> Any:
    names = [str(name) for name in result.category.values if (str(name) in _TRAITS) == traits]
    if not names:
        return None
    curve = (
        as_curve(result, "category_similarity").assign_coords(category=result.category).sel(category=names)
    )
    if np.isnan(curve["value"].values).all():
        return None
    every = as_curve(result, "median_similarity").sel(context_length=int(result.attrs["local"]), drop=True)
    # Bands of several categories would hide each other: each has a panel, beside all tokens.
    both = xr.concat([curve, every.expand_dims(category=names)], dim="row", coords="minimal").assign_coords(
        category=text_coordinate(_counted(result, names), "category", "category"),
        row=text_coordinate(["the category", "all tokens"], "row", "line"),
    )
    both["value"].attrs = dict(result.category_similarity.attrs)
    figure = rows_by_category(both, caption=f"Median over tokens at matched positions. {_IN_BRACKETS}")
    lowest = float(np.nanmin([both["value"].min(), both["low"].min()]))
    figure.update_yaxes(range=[lowest - 0.05 * (1 - lowest), 1 + 0.05 * (1 - lowest)])
    return figure


_IN_BRACKETS = (
    f"In brackets: tokens, and passages that hold them; in fewer than {FEWEST_PASSAGES} there is no interval."
)


def _counted(result: xr.Dataset, names: list[str]) -> list[str]:
    """Categories with their numbers of tokens and of passages."""
    numbers = result.sel(category=names)
    counts = zip(names, numbers.category_tokens.values, numbers.category_passages.values, strict=True)
    return [f"{name} ({tokens} in {passages})" for name, tokens, passages in counts]


def _without_sinks(result: xr.Dataset) -> Any:
    """Only where there are any: else it is the figure before it."""
    held = [str(name) for name in result.category.values if int(result.category_sinks.sel(category=name))]
    if not held:
        return None
    chosen = result.sel(category=held)
    both = xr.concat([chosen.category_similarity, chosen.category_without_sinks], dim="row")
    values = both.transpose("category", "row", "depth").values.reshape(-1, result.sizes["depth"])
    names = [
        label
        for name in held
        for label in (name, f"{name}, without {int(result.category_sinks.sel(category=name))} sink-like")
    ]
    curve = xr.Dataset({"value": (("row", "depth"), values, dict(result.category_similarity.attrs))})
    return curve_over_depth(
        curve.assign_coords(depth=result.depth, row=text_coordinate(names, "row", "line")),
        caption="Categories that hold tokens more than ten times as long as the median of their text, in the full or "
        "in the cut run; each with all its tokens, and without those.",
    )


def _contrasts(result: xr.Dataset, local: int) -> Any:
    every = [str(name) for name in result.category.values]
    base = base_category(every)
    names = [name for name in every if name != base]
    if not names:
        return None
    chosen = result.sel(category=names)
    low, high = chosen.category_difference_low, chosen.category_difference_high
    contrasts = xr.Dataset(
        {
            "difference": chosen.category_difference,
            "low": low,
            "high": high,
            "p_adjusted": chosen.category_p_adjusted,
        }
    ).reset_coords(drop=True)
    contrasts = contrasts.assign_coords(
        category=text_coordinate(_counted(result, names), "category", "category")
    )
    return differences(
        contrasts,
        caption=f"Last {local} tokens kept, depth 1, matched positions. One interval for each pair; p by Holm's "
        f"method over all. {_IN_BRACKETS}",
    )


def _norms(result: xr.Dataset, local: int) -> Any:
    names = [str(name) for name in result.category.values if str(name) not in _TRAITS]
    if not names:
        return None
    ratio = result.category_norm_ratio.sel(category=names)
    curve = xr.Dataset({"value": ratio}).reset_coords(drop=True).assign_coords(category=ratio.category)
    return curve_over_depth(
        _named(curve, "category", names),
        caption=f"Last {local} tokens kept, median over tokens. Far above 1: tokens that become sinks when they "
        "come to stand near the front.",
    )


def _arrivals(result: xr.Dataset) -> Any:
    if np.isnan(result.mean_arrival.values).all():
        return None
    curve = as_curve(result, "mean_arrival").assign_coords(range=result["range"])
    keep = [bool(np.isfinite(one).any()) for one in curve["value"].values]
    curve = curve.isel(range=np.flatnonzero(keep))
    names = [str(name) for name in curve["range"].values]
    return curve_over_depth(
        _named(curve, "range", names),
        caption="How far the state moves when the context grows from the shorter to the longer one. Look for where a "
        "line begins to rise.",
    )


def _prefix(result: xr.Dataset) -> Any:
    both = xr.concat(
        [as_curve(result, "mean_prefix_similarity"), as_curve(result, "mean_last_token_similarity")],
        dim="row",
    )
    count = result.sizes["name"]
    names = [f"“{result.attrs['prefix']}” taken away", "all but the last token taken away"]
    both = both.assign_coords(row=text_coordinate(names, "row", "line"))
    both["value"].attrs = {"long_name": "similarity of the state at the end of a name", "units": "1"}
    return curve_over_depth(
        both,
        caption=f"Mean over {count} names, with intervals over names."
        if count > 1
        else "One name: no interval.",
    )
