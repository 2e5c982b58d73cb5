"""Pictures of what word_formation found."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_curve, text_coordinate
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.panels import rows_by_category
from layerscope.plots.theme import leading
from layerscope.results.schema import read_json

_LOWEST = -1.0
_FORMS = {"split": "word in pieces", "swapped": "another first piece"}

_TAKES_OVER, _ONE_LAYER, _DECODABLE = (
    "Where does the last piece take over?",
    "Which layers build the word?",
    "Is the piece before still decodable?",
)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Patched pairs, parts of layers, twins, erasure."""
    whole = result.sel(group=[group for group in result.group.to_numpy() if "," not in str(group)])
    figures = {
        _TAKES_OVER: _pieces(
            whole.isel(group=[0]),
            "Recovery of another word's prediction when its states are put in. Where the lines cross, the last piece "
            "takes over.",
        ),
        "Both pieces of each group": _pieces(
            result,
            "Recovery of another word's prediction when its states are put in: of all earlier pieces, or of the last "
            "one. Made up: a last piece with which they make no word of the list.",
        ),
    }
    if result.mean_recovered_part.notnull().any():
        figures[_ONE_LAYER] = _lines(
            whole.isel(group=0),
            "mean_recovered_part",
            "Recovery when only what attention or the MLP of one layer adds at the last piece is put in "
            f"({whole.group.to_numpy()[0]}).",
        )
        figures["One layer's part, words and made up"] = _recovery(
            _columns(whole, "mean_recovered_part").rename(group="category", site="row"),
            caption="Recovery when only what attention or MLP of one layer adds at the last piece is put in.",
        )
    if "mean_likeness" in result:
        figures |= _twins(result)
    if "mean_told" in result:
        names = {"within": "within a word", "across": "from word to word"}
        chance = 1 / read_json(result, "n_classes")
        figures[_DECODABLE] = curve_over_depth(
            _dashed(_named(_columns(result, "mean_told"), "case_kinds", names), chance, "chance"),
            caption="What a probe of the last piece's state gives to the true piece before it, on held-out words. A "
            "fall within words only would be erasure.",
        )
    return leading(figures, (_TAKES_OVER, _ONE_LAYER, _DECODABLE))


def _pieces(result: xr.Dataset, caption: str) -> Any:
    """The earlier pieces' states and the last one's, with the crossover, a panel for each group."""
    return _recovery(
        _columns(result, "mean_recovered").rename(group="category", piece="row"),
        _columns(result, "mean_crossing").rename(group="category"),
        caption=caption,
    )


def _lines(result: xr.Dataset, name: str, caption: str) -> Any:
    """Recovery as lines of one panel; an axis that a few pairs would stretch ends at −1."""
    curves = _columns(result, name)
    curves = curves.drop_vars([name for name in curves.coords if name not in curves["value"].dims])
    figure = curve_over_depth(curves, caption=caption)
    if bool((curves["low"] < _LOWEST).any()):
        figure.update_yaxes(range=[_LOWEST, 1.1])
    return figure


def _twins(result: xr.Dataset) -> dict[str, Any]:
    words = result.sizes["word"]
    likeness = _named(_columns(result, "mean_likeness"), "form", _FORMS)
    shares = _named(_columns(result, "mean_found_twin"), "form", _FORMS)
    return {
        "Does a split word become its single token?": curve_over_depth(
            _with_difference(result, likeness),
            caption=f"Cosine above that to other words' tokens, mean over {words} words. Only a difference above 0 "
            "comes from the word.",
        ),
        "Split words nearest to their own token": curve_over_depth(
            _dashed(shares, 1 / words, "chance"),
            caption=f"Share of {words} words, each among the single tokens of all of them.",
        ),
    }


def _recovery(values: xr.Dataset, *transitions: xr.Dataset, caption: str) -> Any:
    """Panels of recovery: its axis ends at −1, below which a few pairs would decide about its scale."""
    below = bool((xr.concat([values["value"], values["low"]], dim="end") < _LOWEST).any())
    if below:
        caption += (
            " The axis ends at −1: below it, a prediction has moved more than twice as far as the two words "
            "lie apart."
        )
    figure = rows_by_category(values, *transitions, caption=caption)
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
    for end in ("low", "high"):  # bands of single forms hold what words differ in, the difference's does not
        both[end] = both[end].where(both.form == difference.form.item())
    return _dashed(both, 0.0, "as to other words")


def _columns(result: xr.Dataset, name: str) -> xr.Dataset:
    """Value and interval, with the number of units that each cell rests on."""
    return as_curve(result, name).assign(n=result[f"{name}_n"].reset_coords(drop=True))


def _named(curves: xr.Dataset, dimension: str, names: dict[str, str]) -> xr.Dataset:
    said = [names[str(name)] for name in curves[dimension].to_numpy()]
    return curves.assign_coords({dimension: text_coordinate(said, dimension, dimension)})
