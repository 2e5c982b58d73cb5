"""What attention_knockout shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from layerscope.evidence import as_curve, text_coordinate
from layerscope.evidence.distances import context_of_range
from layerscope.evidence.wording import ALPHA
from layerscope.experiments.attention_knockout.conclude import ALL, farthest_seen
from layerscope.experiments.attention_knockout.settings import PLACED
from layerscope.plots.axes import label
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.distribution import distribution
from layerscope.plots.heatmap import token_heatmap
from layerscope.plots.theme import leading

_ROUNDING = 1e-6
_BELOW = " Below a millionth of a nat is rounding."

_EFFECT, _PLACES = "Effect of cutting each distance", "In which layers is each distance needed?"
_SUBJECT = "Cost of cutting the subject, by category"
_LEAD = (_EFFECT, _PLACES, _SUBJECT, "What does the last token need?")
_BESIDE, _MARK = 250, 14
"""Pixels beside the cells of a map, and of a cell that holds a mark."""
_SMALL = 0.01
"""Nats below which a lost log-probability is as good as nothing."""


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by name."""
    figures: dict[str, Any] = {}
    if "effect" in result:
        figures |= {
            "What does cutting each distance cost?": _map(result, ""),
            "Which distances matter more than random keys?": _against_random(result, ""),
            _EFFECT: _by_distance(
                result, "effect", "Divergence with one range of distances cut, by layer.", log=True
            ),
            _PLACES: _centroids(result),
            "Attention that was cut": _by_distance(
                result, "removed", "Share of the layer's attention that lay on one range, mean over heads."
            ),
            "Effect per unit of attention": _by_distance(
                result,
                "effect_per_mass",
                "Divergence over the attention that was cut. A gap: hardly any was.",
                log=True,
            ),
            "Farthest range, by where attention goes": _by_fate(result, "", farthest_seen(result)),
        }
        figures |= _by_window(result)
    if "prompt_effect" in result:
        figures |= {
            "What does the last token need?": _map(result, "prompt_"),
            "Does the subject matter more than random keys?": _against_random(result, "prompt_"),
            _SUBJECT: _categories(result),
            "The subject, by where attention goes": _by_fate(result, "prompt_", 0),
        }
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    return leading(drawn, _LEAD)


def said_of_set(name: str) -> str:
    """A set of keys on an axis: "≥ 128 tokens back", "1-9 tokens back", "first token"."""
    return context_of_range(name).removeprefix("context ") if " back" in name else name


def _sets(names: Any, dimension: str) -> xr.Variable:
    return text_coordinate([said_of_set(str(name)) for name in names], dimension, "keys that are cut off")


def _bands(result: xr.Dataset) -> slice:
    return slice(int(result.attrs["bands"]))


def _map(result: xr.Dataset, prefix: str) -> Any:
    """Lost log-probability, with a dot where it is significant; a ring where it is, wherever attention goes."""
    here = result.isel(window=0)
    significant = here[f"{prefix}lost_p"].isel(fate=0) < ALPHA
    everywhere = significant & (here[f"{prefix}fates_told"] == here[f"{prefix}fates_here"])
    return _marked(
        here[f"{prefix}lost"].isel(fate=0),
        f"{prefix}edges",
        (significant, everywhere),
        f"Removed attention {_placed(result)}. Dot: significant, corrected for the whole map; ring: significant "
        "wherever the removed attention goes. Colours by the square root.",
        root=True,
    )


def _against_random(result: xr.Dataset, prefix: str) -> Any:
    """How much more than random keys a set is needed, with a dot where it is significant."""
    here = result.isel(window=0)
    units = int(result.attrs["prompts" if prefix else "passages"])
    compared = 2 * here[f"{prefix}relative_excess_n"] >= units  # what the test asks for, see `conclude.maps`
    keys = (
        "random keys, which hold as much of the layer's attention,"
        if "much" in str(result.attrs["control"])
        else "as many random keys,"
    )
    return _marked(
        here[f"{prefix}relative_excess"].where(compared),
        f"{prefix}edges",
        (here[f"{prefix}relative_excess_p"] < ALPHA,),
        f"Divergence less that of {keys} over the sum of both. Dot: significant, corrected for the whole map.",
        hatched="cells for which most texts have no such random keys",
    )


def _marked(values: xr.DataArray, sets: str, marks: Sequence[xr.DataArray], caption: str, **more: Any) -> Any:
    """A map of sets and layers, with dots and rings."""
    values = values.transpose(sets, "layer").reset_coords(drop=True)
    if not values.notnull().any():
        return None
    names = [str(name) for name in _sets(values[sets].to_numpy(), sets).to_numpy()]
    figure = token_heatmap(
        values.rename({sets: "token"}).drop_vars("token", errors="ignore"),
        names,
        scale="effect",
        caption=caption,
        **more,
    )
    figure.update_yaxes(title="keys that are cut off", ticktext=[label(name) for name in names])
    figure.update_xaxes(range=[-0.5, values.sizes["layer"] - 0.5])
    width = _BESIDE + _MARK * values.sizes["layer"]
    figure.update_layout(meta=figure.layout.meta | {"min_width": width})
    for where, (symbol, size) in zip(marks, (("circle", 8), ("circle-open", 13)), strict=False):
        rows, columns = np.nonzero(where.transpose(sets, "layer").to_numpy())
        _add_marks(figure, values.layer.to_numpy()[columns], rows, symbol, size)
    return figure


def _add_marks(figure: Any, layers: np.ndarray, rows: np.ndarray, symbol: str, size: int) -> None:
    dotted = symbol == "circle"
    line = {"width": 1 + dotted, "color": "white" if dotted else "black"}
    figure.add_trace(
        go.Scatter(
            x=layers,
            y=rows,
            mode="markers",
            marker={"symbol": symbol, "size": size, "color": "black", "line": line},
            hoverinfo="skip",
            showlegend=False,
        )
    )


def _placed(result: xr.Dataset, place: int = 0) -> str:
    return PLACED[str(result.fate[place].item())]


def _by_distance(result: xr.Dataset, name: str, caption: str, *, log: bool = False) -> Any:
    here = result.isel(window=0, drop=True).isel(edges=_bands(result))
    curve = as_curve(here.isel(fate=0, drop=True), name).transpose("edges", "layer")
    if not curve["value"].notnull().any():
        return None
    curve = _above_rounding(curve) if log else curve
    curve["value"].attrs = dict(result[name].attrs)
    return curve_over_depth(
        curve.assign_coords(edges=_sets(here.edges.to_numpy(), "edges")),
        log=log,
        caption=f"{caption} Mean over passages, with intervals.{_BELOW if log else ''}",
    )


def _above_rounding(curve: xr.Dataset) -> xr.Dataset:
    """A curve for a logarithmic axis: nothing below what float32 tells from 0."""
    return curve.map(lambda values: values.clip(min=_ROUNDING))


def _centroids(result: xr.Dataset) -> Any:
    here = result.isel(window=0, drop=True).isel(edges=_bands(result))
    passages = [str(name) for name in result.used_passage.to_numpy()]
    each = here.passage_centroid.transpose("edges", "used_passage")
    if not each.notnull().any():
        return None
    sets = _sets(here.edges.to_numpy(), "edges")
    points = each.stack(point=("edges", "used_passage")).reset_index("point", drop=True)
    return distribution(
        points,
        list(np.repeat(sets.to_numpy().astype(str), len(passages))),
        as_curve(here.isel(fate=0, drop=True), "centroid").assign_coords(edges=sets),
        names=passages * len(sets),
        caption="Each point is a passage: the mean layer at which cutting a range moves its predictions, weighted by "
        "how far.",
    )


def _by_fate(result: xr.Dataset, prefix: str, row: int) -> Any:
    sets = f"{prefix}edges"
    here = result.isel({sets: row, "window": 0}, drop=True)
    curve = as_curve(here, f"{prefix}effect").transpose("fate", "layer")
    if not curve["value"].notnull().any():
        return None
    names = [PLACED[str(name)] for name in result.fate.to_numpy()]
    curve = curve.assign_coords(fate=text_coordinate(names, "fate", "where removed attention goes"))
    curve = _above_rounding(curve.assign(null=here[f"{prefix}control_effect"].reset_coords(drop=True)))
    curve["value"].attrs = dict(result[f"{prefix}effect"].attrs)
    curve["null"].attrs["name"] = "random keys cut"
    return curve_over_depth(
        curve,
        log=True,
        caption=f"Cut off: {label(said_of_set(str(result[sets][row].item())))}. The effect should not depend on where "
        f"the removed attention goes. Dashed: random keys cut, their attention {_placed(result)}.{_BELOW}",
    )


def _by_window(result: xr.Dataset) -> dict[str, Any]:
    """The farthest range in windows of several widths, where there are several."""
    if result.sizes["window"] < 2:
        return {}
    here = result.isel(edges=farthest_seen(result), fate=0, drop=True)
    curve = as_curve(here, "effect").transpose("window", "layer")
    curve["value"].attrs = dict(result.effect.attrs)
    names = [f"{width} layer{'s' if width > 1 else ''}" for width in result.window.to_numpy().tolist()]
    return {
        "Farthest range, by window": curve_over_depth(
            curve.assign_coords(window=text_coordinate(names, "window", "layers cut together")),
            caption="Layers that are cut together, around each layer. A wide window leaves less to make up for.",
        )
    }


def _categories(result: xr.Dataset) -> Any:
    curve = as_curve(result, "subject_lost").transpose("category", "layer")
    if not curve["value"].notnull().any():
        return None
    curve = curve.map(lambda lost: lost.clip(min=_SMALL)).assign_coords(category=result.category)
    curve["value"].attrs = dict(result.subject_lost.attrs)
    names = sorted(map(str, result.category.to_numpy()), key=lambda name: (name == ALL, name))
    return curve_over_depth(
        curve.sel(category=names),
        log=True,
        caption="The last token is cut from the subject in one layer; mean over prompts, with intervals. Drawn at "
        f"{_SMALL:g} where below.",
    )
