"""What attention_knockout shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from layerscope.evidence.curves import as_curve
from layerscope.experiments._knockout_maps import LEVEL
from layerscope.experiments._knockout_summary import farthest_seen
from layerscope.plots.axes import label
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.distribution import distribution
from layerscope.plots.heatmap import token_heatmap

_FATES = {
    "renormalise": "spread over the other keys",
    "first": "sent to the first token",
    "mean": "kept on mean values",
}


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by name."""
    figures: dict[str, Any] = {}
    if "effect" in result:
        figures |= {
            "what cutting costs, by distance and layer": _map(result, ""),
            "missed more than keys cut at random": _against_random(result, ""),
            "effect of each distance": _by_distance(
                result, "effect", "Divergence with one range of distances cut.", log=True
            ),
            "where in depth each distance is needed": _centroids(result),
            "attention that was cut": _by_distance(
                result, "removed", "Share of the layer's attention that lay on one range, mean over heads."
            ),
            "effect for each unit of attention": _by_distance(
                result,
                "effect_per_mass",
                "Divergence over the attention that was cut. A gap: hardly any was.",
                log=True,
            ),
            "the farthest range, by where attention goes": _by_fate(result, "", farthest_seen(result)),
        }
        figures |= _by_window(result)
    if "prompt_effect" in result:
        figures |= {
            "what the last token needs, by layer": _map(result, "prompt_"),
            "the subject against keys cut at random": _against_random(result, "prompt_"),
            "the subject, by category": _categories(result),
            "the subject, by where attention goes": _by_fate(result, "prompt_", 0),
        }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _bands(result: xr.Dataset) -> list[str]:
    return [str(name) for name in result.edges.values[: int(result.attrs["bands"])]]


def _map(result: xr.Dataset, prefix: str) -> Any:
    """Lost log-probability, with a dot where it is significant and a ring where it is so wherever the removed "
    "attention goes."""
    here = result.isel(window=0)
    told = here[f"{prefix}lost_p"].isel(fate=0) < LEVEL
    agreed = told & (here[f"{prefix}fates_told"] == here[f"{prefix}fates_here"])
    return _marked(
        here[f"{prefix}lost"].isel(fate=0),
        f"{prefix}edges",
        (told, agreed),
        f"Removed attention {_fate(result)}. Dot: significant, corrected for the whole map; ring: significant "
        "wherever the removed attention goes.",
    )


def _against_random(result: xr.Dataset, prefix: str) -> Any:
    """How much more than random keys a set is missed, with a dot where it is significant."""
    here = result.isel(window=0)
    units = int(result.attrs["prompts" if prefix else "passages"])
    compared = 2 * here[f"{prefix}relative_excess_n"] >= units  # what the test asks for, see `_knockout_maps`
    return _marked(
        here[f"{prefix}relative_excess"].where(compared),
        f"{prefix}edges",
        (here[f"{prefix}relative_excess_p"] < LEVEL,),
        "Divergence less that of random keys, which hold as much of the layer's attention, over the sum of both. Dot: "
        "significant, corrected for the whole map."
        if "much" in str(result.attrs["control"])
        else "Divergence less that of as many random keys, over the sum of both. Dot: significant, corrected for the "
        "whole map.",
        hatched="cells for which most texts have no such random keys",
    )


def _marked(
    values: xr.DataArray, edges: str, marks: Sequence[xr.DataArray], caption: str, **more: Any
) -> Any:
    """A map of sets and layers, with dots and rings."""
    values = values.transpose(edges, "layer").reset_coords(drop=True)
    names = [str(name) for name in values[edges].values]
    if not np.isfinite(values.values).any():
        return None
    figure = token_heatmap(
        values.rename({edges: "token"}).drop_vars("token", errors="ignore"),
        names,
        scale="effect",
        caption=caption,
        **more,
    )
    figure.update_yaxes(title="keys that are cut off", ticktext=[label(name) for name in names])
    figure.update_xaxes(range=[-0.5, values.sizes["layer"] - 0.5])
    for where, (symbol, size) in zip(marks, (("circle", 8), ("circle-open", 13)), strict=False):
        dotted = symbol == "circle"
        rows, columns = np.nonzero(where.transpose(edges, "layer").values)
        figure.add_trace(
            go.Scatter(
                x=values.layer.values[columns],
                y=rows,
                mode="markers",
                marker={
                    "symbol": symbol,
                    "size": size,
                    "color": "black",
                    "line": {"width": 1 + dotted, "color": "white" if dotted else "black"},
                },
                hoverinfo="skip",
                showlegend=False,
            )
        )
    return figure


def _fate(result: xr.Dataset, place: int = 0) -> str:
    return _FATES[str(result.fate.values[place])]


def _lines(curve: xr.Dataset, dimension: str, names: list[str]) -> xr.Dataset:
    """A curve whose lines are named."""
    return curve.assign_coords({dimension: (dimension, names)})


def _by_distance(result: xr.Dataset, name: str, caption: str, *, log: bool = False) -> Any:
    bands = _bands(result)
    here = result.isel(window=0, drop=True).isel(edges=slice(0, len(bands)))
    curve = as_curve(here.isel(fate=0, drop=True), name).transpose("edges", "layer")
    if not np.isfinite(curve["value"].values).any():
        return None
    curve = _above_rounding(curve) if log else curve
    curve["value"].attrs = dict(result[name].attrs)
    caption = f"{caption} Mean over passages, with intervals.{_BELOW if log else ''}"
    return curve_over_depth(_lines(curve, "edges", bands), log=log, caption=caption)


_ROUNDING = 1e-6
_BELOW = " Below a millionth of a nat is rounding."


def _above_rounding(curve: xr.Dataset) -> xr.Dataset:
    """A curve for a logarithmic axis: nothing below what float32 tells from 0."""
    return curve.map(lambda values: values.clip(min=_ROUNDING))


def _centroids(result: xr.Dataset) -> Any:
    bands, passages = _bands(result), [str(name) for name in result.used_passage.values]
    values = result.passage_centroid.isel(window=0, edges=slice(0, len(bands))).values.T
    if not np.isfinite(values).any():
        return None
    points = xr.DataArray(values.reshape(-1), dims="point", attrs=result.passage_centroid.attrs)
    means = as_curve(result.isel(fate=0, window=0, drop=True), "centroid").isel(edges=slice(0, len(bands)))
    return distribution(
        points,
        list(np.repeat(bands, len(passages))),
        _lines(means, "edges", bands),
        names=passages * len(bands),
        caption="Each point is a passage: the mean layer at which cutting a range moves its predictions, weighted by "
        "how far. Further right: later in depth.",
    )


def _by_fate(result: xr.Dataset, prefix: str, row: int) -> Any:
    edges = f"{prefix}edges"
    here = result.isel({edges: row, "window": 0}, drop=True)
    curve = as_curve(here, f"{prefix}effect").transpose("fate", "layer")
    if not np.isfinite(curve["value"].values).any():
        return None
    curve["value"].attrs = dict(result[f"{prefix}effect"].attrs)
    names = [_FATES[str(name)] for name in result.fate.values]
    curve = _lines(curve, "fate", names).assign(null=here[f"{prefix}control_effect"].reset_coords(drop=True))
    curve = _above_rounding(curve)
    curve["value"].attrs = dict(result[f"{prefix}effect"].attrs)
    curve["null"].attrs["name"] = "keys cut at random"
    return curve_over_depth(
        curve,
        log=True,
        caption=f"Cut off: {label(result[edges].values[row])}. Where the removed attention goes should not matter. "
        "Dashed: "
        f"keys cut at random, their attention {_fate(result)}.{_BELOW}",
    )


def _by_window(result: xr.Dataset) -> dict[str, Any]:
    """The farthest range in windows of several widths, where there are several."""
    if result.sizes["window"] < 2:
        return {}
    here = result.isel(edges=farthest_seen(result), fate=0, drop=True)
    curve = as_curve(here, "effect").transpose("window", "layer")
    curve["value"].attrs = dict(result.effect.attrs)
    names = [f"{width} layer{'s' if width > 1 else ''}" for width in result.window.values.tolist()]
    return {
        "the farthest range, by window": curve_over_depth(
            _lines(curve, "window", names),
            caption="Layers that are cut together, around each layer. A wide window leaves less to make up for.",
        )
    }


def _categories(result: xr.Dataset) -> Any:
    curve = as_curve(result, "subject_lost").transpose("category", "layer")
    if not np.isfinite(curve["value"].values).any():
        return None
    curve["value"].attrs = dict(result.subject_lost.attrs)
    names = [str(name) for name in result.category.values]
    return curve_over_depth(
        _lines(curve, "category", names),
        caption="The last token is cut from the subject at one layer. Mean over prompts of a category, with intervals.",
    )
