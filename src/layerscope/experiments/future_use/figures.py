"""What future_use shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_curve, level_of, text_coordinate
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.heatmap import token_heatmap
from layerscope.plots.theme import PANEL_HEIGHT, leading
from layerscope.results.escaping import stored

_HORIZONS = (1, 2, 4, 8, 16, 32, 64)
_NEAR_HALF = 0.35
_MOST_TICKS = 12

_LEAD = (
    "Whose predictions need the state?",
    "What share serves later tokens?",
    "Effect on predictions, by distance",
)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by name."""
    figures = {
        "Whose predictions need the state?": _readers(result, "effect"),
        "What share serves later tokens?": _share(result),
        "Effect on predictions, by distance": _by_distance(result),
        "Share of the future, by horizon": _by_horizon(result),
        "Lost log-probability of actual next tokens": _readers(result, "lost"),
    }
    return leading({name: figure for name, figure in figures.items() if figure is not None}, _LEAD)


def _horizon(result: xr.Dataset) -> int:
    return int(result.attrs["horizon"])


def _band(result: xr.Dataset) -> str:
    return f"Mean over {result.attrs['passages']} passages, {level_of(result):.0%} bootstrap bands."


def _readers(result: xr.Dataset, name: str) -> Any:
    curve = as_curve(result, name).isel(perturbation=0, drop=True)
    curve["value"].attrs = dict(result[name].attrs)
    names = ["its own prediction", f"the next {_horizon(result)} together"]
    return curve_over_depth(
        curve.drop_vars("reader", errors="ignore")
        .rename(reader="row")
        .assign_coords(row=text_coordinate(names, "row", "line")),
        caption=f"The state of one token is replaced at one depth. {_band(result)} Where the later tokens' line falls, "
        "they have read it.",
    )


def _share(result: xr.Dataset) -> Any:
    curve = as_curve(result, "future_share").isel(perturbation=0, drop=True)
    curve["value"].attrs = dict(result.future_share.attrs)
    curve["null"] = (
        result.future_share.isel(perturbation=1).reset_coords(drop=True).assign_attrs(name="random change")
    )
    figure = curve_over_depth(
        curve,
        caption=f"Over {_horizon(result)} later tokens; above one half a state serves the future most. {_band(result)}",
    )
    return _with_half(figure, curve)


def _with_half(figure: Any, shares: xr.Dataset) -> Any:
    """From 0 up to where the shares reach; with a line at one half where that is not far above."""
    most = float(shares.to_dataarray().max())
    if most > _NEAR_HALF:
        figure.add_hline(y=0.5, line={"width": 1, "dash": "dot", "color": "gray"})
    return figure.update_yaxes(rangemode="tozero")


def _by_distance(result: xr.Dataset) -> Any:
    values = result.by_distance.transpose("distance", "depth")
    labels = [stored(str(d)) for d in result.distance.values]
    largest = values.max("depth")
    scaled = (values / largest.where(largest > 0)).rename(distance="token").drop_vars("token")
    scaled.attrs = {"long_name": "divergence, over the largest of its row", "units": "1"}
    figure = token_heatmap(
        scaled,
        labels,
        caption="Each row is the prediction of one token, so many behind the replaced one; 1 is its largest effect. "
        "The farther right a row reaches, the later that token reads.",
    )
    rows = range(0, len(labels), -(-len(labels) // _MOST_TICKS))
    ticks = {"tickvals": list(rows), "ticktext": [labels[row] for row in rows]}
    figure.update_yaxes(title="prediction [tokens further on]", **ticks)
    return figure.update_layout(meta=figure.layout.meta | {"min_height": PANEL_HEIGHT})


def _by_horizon(result: xr.Dataset) -> Any:
    shown = [h for h in _HORIZONS if h < _horizon(result)] + [_horizon(result)]
    effect = result.by_distance
    present, later = effect.sel(distance=0, drop=True), effect.sel(distance=slice(1, None)).cumsum("distance")
    shares = later / (present + later).where(present + later > 0)
    chosen = shares.isel(distance=[h - 1 for h in shown]).transpose("distance", "depth")
    value = xr.DataArray(
        chosen.values,
        dims=("row", "depth"),
        coords={
            "depth": result.depth,
            "row": text_coordinate([f"{h} later token{'s' if h > 1 else ''}" for h in shown], "row", "line"),
        },
        attrs=result.future_share.attrs,
    )
    if not np.isfinite(value.values).any():
        return None
    figure = curve_over_depth(
        xr.Dataset({"value": value}),
        caption="The same share with fewer later predictions counted: the height depends on how many are, the fall "
        "with depth less.",
    )
    return _with_half(figure, value.to_dataset(name="value"))
