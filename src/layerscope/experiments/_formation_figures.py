"""Pictures of what word_formation found."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments._coordinates import text_coordinate
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.panels import rows_by_category
from layerscope.results.schema import read_json


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by name."""
    figures = {
        "patched pairs": rows_by_category(
            _columns(result, "mean_recovered").rename(group="category", piece="row"),
            _columns(result, "mean_crossing").rename(group="category"),
            title="Where the last piece takes over from the earlier ones",
            caption="Recovery of another word's prediction when its states are put in: of all earlier "
            "pieces, or of the "
            "last one. Made up: a last piece with which they make no word of the list.",
        )
    }
    if np.isfinite(result.mean_recovered_part.values).any():
        figures["attention and MLP"] = rows_by_category(
            _columns(
                result.sel(group=[g for g in result.group.values if "," not in str(g)]), "mean_recovered_part"
            ).rename(group="category", site="row"),
            title="What one block's attention or MLP brings to the last piece",
            caption="Recovery when only the vector that this part of one block adds at the last piece "
            "is put in.",
        )
    if "mean_likeness" in result:
        says = {"split": "the word in pieces", "swapped": "its last piece behind another first one"}
        for name, title in (
            ("mean_likeness", "Does the last piece's state become the single token's?"),
            ("mean_found_twin", "How many split words have their own single token nearest?"),
        ):
            figures[title] = curve_over_depth(_named(_columns(result, name), "form", says), title=title)
    if "mean_told" in result:
        says = {"within": "within a word", "across": "from word to word"}
        curves = _columns(result, "mean_told")
        chance = 1 / read_json(result, "n_classes")
        curves["null"] = xr.DataArray(np.full(curves.sizes["depth"], chance), dims=("depth",))
        figures["the piece before"] = curve_over_depth(
            _named(curves, "case_kinds", says),
            title="Can the last piece's state still tell the piece before it?",
        )
    return figures


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
