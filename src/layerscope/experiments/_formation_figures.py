"""Pictures of what word_formation found."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import text_coordinate
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.panels import rows_by_category
from layerscope.results.schema import read_json

_LOWEST = -1.0


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by name."""
    figures = {
        "patched pairs": _recovery(
            _columns(result, "mean_recovered").rename(group="category", piece="row"),
            _columns(result, "mean_crossing").rename(group="category"),
            title="Where the last piece takes over from the earlier ones",
            caption="Recovery of another word's prediction when its states are put in: of all earlier "
            "pieces, or of the last one. Made up: a last piece with which they make no word of the list.",
        )
    }
    if np.isfinite(result.mean_recovered_part.values).any():
        figures["attention and MLP"] = _recovery(
            _columns(
                result.sel(group=[g for g in result.group.values if "," not in str(g)]), "mean_recovered_part"
            ).rename(group="category", site="row"),
            title="What one layer's attention or MLP brings to the last piece",
            caption="Recovery when only the vector that this part of one layer adds at the last piece "
            "is put in.",
        )
    if "mean_likeness" in result:
        says = {"split": "the word in pieces", "swapped": "its last piece behind another first one"}
        title = "Does the last piece's state become the single token's?"
        figures[title] = curve_over_depth(
            _with_difference(result, _named(_columns(result, "mean_likeness"), "form", says)),
            title=title,
            caption=f"Mean over {result.sizes['word']} words. The bands of the first two lines hold what words "
            "differ in; the difference is taken word by word.",
        )
        title = "How many split words have their own single token nearest?"
        shares = _named(_columns(result, "mean_found_twin"), "form", says)
        figures[title] = curve_over_depth(
            _dashed(shares, 1 / result.sizes["word"], "chance"),
            title=title,
            caption=f"Share of {result.sizes['word']} words, each among the single tokens of all of them.",
        )
    if "mean_told" in result:
        says = {"within": "within a word", "across": "from word to word"}
        curves = _columns(result, "mean_told")
        chance = 1 / read_json(result, "n_classes")
        figures["the piece before"] = curve_over_depth(
            _dashed(_named(curves, "case_kinds", says), chance, "chance"),
            title="Is the piece before still decodable from the last?",
            caption="Probability that a probe of the last piece's state gives to the true piece before it, on words "
            "that it did not learn from.",
        )
    return figures


def _recovery(values: xr.Dataset, *transitions: xr.Dataset, title: str, caption: str) -> Any:
    """Panels of recovery: its axis ends at −1, below which a few pairs would decide about its scale."""
    below = bool((xr.concat([values["value"], values["low"]], dim="end") < _LOWEST).any())
    if below:
        caption += (
            " The axis ends at −1: below it, a prediction has moved more than twice as far as the two words "
            "lie apart."
        )
    figure = rows_by_category(values, *transitions, title=title, caption=caption)
    if below:
        figure.update_yaxes(range=[_LOWEST, 1.1])
    return figure


def _dashed(curves: xr.Dataset, level: float, name: str) -> xr.Dataset:
    null = xr.DataArray(np.full(curves.sizes["depth"], level), dims=("depth",), attrs={"name": name})
    return curves.assign(null=null)


def _with_difference(result: xr.Dataset, curves: xr.Dataset) -> xr.Dataset:
    """The two forms' likeness, and their difference, which is what the claim rests on."""
    difference = _columns(result, "likeness_gain").expand_dims(
        form=text_coordinate(["difference"], "form", "form").values
    )
    both = xr.concat([curves, difference], dim="form", join="exact", combine_attrs="override")
    both["value"].attrs = curves["value"].attrs
    return _dashed(both, 0.0, "as like as to other words")


def _columns(result: xr.Dataset, name: str) -> xr.Dataset:
    parts = {
        "value": result[name],
        "low": result[f"{name}_low"],
        "high": result[f"{name}_high"],
        "n": result[f"{name}_n"],
    }
    return xr.Dataset({key: part.reset_coords(drop=True) for key, part in parts.items()})


def _named(curves: xr.Dataset, dimension: str, says: dict[str, str]) -> xr.Dataset:
    names = [says[str(name)] for name in curves[dimension].values]
    return curves.assign_coords({dimension: text_coordinate(names, dimension, dimension)})
