"""Directions of weights: how many are coherent, beside their controls, and what else is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import text_coordinate
from layerscope.evidence.curves import as_curve, as_rows
from layerscope.experiments.weight_directions.conclude.depth import over_depth
from layerscope.experiments.weight_directions.conclude.rated import may_rate
from layerscope.experiments.weight_directions.conclude.removals import removed_in_words
from layerscope.experiments.weight_directions.measure.pairs import LIKENESS
from layerscope.experiments.weight_directions.settings import TOKENS_OF, kind_in_words
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.differences import differences
from layerscope.plots.panels import rows_by_category
from layerscope.plots.theme import leading
from layerscope.results.schema import quantity, read_json

_COHERENT, _ABOVE, _REMOVED, _DETECTS = (
    "How many directions are coherent?",
    "Do singular directions beat rotations?",
    "What does removing a direction change?",
    "Does the rater detect known token sets?",
)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by name."""
    rater = str(read_json(result, "rate_by"))
    raters = _raters(result)
    figures: dict[str, Any] = (
        {_DETECTS: _power(result, [rater] if rater in raters else raters[:1])} if raters else {}
    )
    if may_rate(result):
        figures[_COHERENT] = _attention_and_mlps(result, rater)
        figures["Coherent directions of each kind"] = _all_rates(result, rater)
        figures["Coherent directions beside chance"] = _rates(result, rater)
        figures |= _controls(result, rater)
    figures |= _character(result)
    figures["Directions with near-equal singular values"] = _near_equal(result)
    figures |= _pairs(result) | _sinks(result) | _removals(result)
    if len(raters) > 1:
        figures["Which raters detect known token sets?"] = _power(result, raters)
    return leading(figures, (_COHERENT, _ABOVE, _REMOVED, _DETECTS))


def _raters(result: xr.Dataset) -> list[str]:
    """Raters that were tried on known sets."""
    if "detected_all" not in result:
        return []
    return [str(name) for name in result.rater.values[result.detected_all.notnull().any("side").values]]


def _power(result: xr.Dataset, raters: Sequence[str]) -> Any:
    """What each rater detects of known sets, and what it makes of unrelated tokens, on both sides of the vocabulary."""
    names, columns = [], []
    for rater in raters:
        for side in result.side.values:
            for name, what in (("detected_all", "known sets"), ("false_alarms_all", "unrelated tokens")):
                here = result.sel(rater=rater, side=side)
                names.append(f"{f'{rater}, ' * (len(raters) > 1)}{TOKENS_OF[str(side)]}: {what}")
                columns.append([float(here[f"{name}{end}"]) for end in ("", "_low", "_high")])
    value, low, high = np.array(columns).T
    shares = xr.Dataset(
        {
            "difference": quantity(value, "made", "share of made directions called coherent"),
            "low": quantity(low, "made", "lower end"),
            "high": quantity(high, "made", "upper end"),
            "p_adjusted": quantity(np.full(len(names), np.nan), "made", "p"),
            "significant": quantity(np.ones(len(names), bool), "made", "drawn in colour"),
        },
        coords={"made": text_coordinate(names, "made", "rater, side and what directions are made of")},
    )
    caption = (
        f"Directions made of 4, 8 or 12 tokens, rated by {' and '.join(raters)}: mean and 95% bootstrap interval over "
        "sets. A rater with power lifts known sets far above unrelated tokens."
    )
    return differences(shares, caption=caption)


def _attention_and_mlps(result: xr.Dataset, rater: str) -> Any:
    """Two lines, of all of a layer's attention matrices and of its MLP's: six kinds would cover one another."""
    rates = over_depth(result)
    parts = {"attention": "coherent_directions_attention", "MLP": "coherent_directions_mlp"}
    rows = {label: rates[name][["value", "low", "high"]] for label, name in parts.items() if name in rates}
    null = rates["coherent_directions"]["null"].reset_coords(drop=True).assign_attrs(name="random directions")
    return curve_over_depth(
        as_rows(rows, "share of coherent directions").assign(null=null),
        caption=f"Share of each layer's main directions whose top tokens the rater ({rater}) calls coherent. Look for "
        "layers well above random directions.",
    ).update_yaxes(rangemode="tozero")


def _all_rates(result: xr.Dataset, rater: str) -> Any:
    """A line for each kind of direction, without bands, which would cover one another."""
    here = result.sel(rater=rater)
    rates = here.rate.isel(kind=np.flatnonzero(here.rate.notnull().any("layer").values)).reset_coords(
        drop=True
    )
    kinds = text_coordinate(
        [kind_in_words(kind) for kind in rates.kind.values], "kind", "what a direction is of"
    )
    chance = here.random_rate.mean("kind").expand_dims(layer=result.layer).reset_coords(drop=True)
    return curve_over_depth(
        xr.Dataset({"value": rates.assign_coords(kind=kinds)})
        .transpose("kind", "layer")
        .assign(null=chance.assign_attrs(name="random directions")),
        caption=f"Share of each layer's main directions whose top tokens the rater ({rater}) calls coherent.",
    ).update_yaxes(rangemode="tozero")


def _rates(result: xr.Dataset, rater: str) -> Any:
    """One panel for each kind: singular directions beside rotations and chance."""
    here = result.sel(rater=rater)
    layers = here.sizes["layer"]
    rows: dict[str, list[Any]] = {
        "singular directions": [here[f"rate{end}"].values for end in ("", "_low", "_high")],
        "rotations in the same space": [here[f"rotated_rate{end}"].values for end in ("", "_low", "_high")],
        "random directions": [np.repeat(here.random_rate.values[:, None], layers, 1), None, None],
        "other tokens as frequent": [np.repeat(here.matched_rate.values[:, None], layers, 1), None, None],
        "untrained twin": [np.repeat(here.untrained_rate.values[:, None], layers, 1), None, None],
    }
    known = {name: values for name, values in rows.items() if np.isfinite(values[0]).any()}
    columns = {}
    for place, column in enumerate(("value", "low", "high")):
        filled = [
            v[place] if v[place] is not None else np.full(known[n][0].shape, np.nan) for n, v in known.items()
        ]
        columns[column] = quantity(np.stack(filled, axis=1), "category row layer", "share coherent")
    values = xr.Dataset(
        columns,
        coords={
            "category": text_coordinate(
                [kind_in_words(kind) for kind in here.kind.values], "category", "kind"
            ),
            "row": text_coordinate(list(known), "row", "directions"),
            "layer": result.layer,
        },
    )
    folded = "norms folded in" if read_json(result, "folded") else "norms not folded in"
    caption = (
        f"Rater: {rater}; {folded}. Above rotations: the singular directions are coherent; above random ones only: "
        "their space is."
    )
    # Rates are mostly small: lines near 0 would lie on one another in panels that go up to 1.
    highest = float(np.nanmax([values[column].max() for column in ("value", "high")]))
    return rows_by_category(values, caption=caption).update_yaxes(
        range=[-0.04 * highest, min(1.04, 1.1 * highest)] if highest > 0 else [-0.04, 1.04]
    )


def _controls(result: xr.Dataset, rater: str) -> dict[str, Any]:
    here = result.sel(rater=rater)
    known = here.above_rotations_p.notnull()
    if not bool(known.any()):
        return {}
    here = here.isel(kind=np.flatnonzero(known.values))
    contrasts = xr.Dataset(
        {
            "difference": here.above_rotations.reset_coords(drop=True),
            "low": here.above_rotations_low.reset_coords(drop=True),
            "high": here.above_rotations_high.reset_coords(drop=True),
            "p_adjusted": here.above_rotations_p.reset_coords(drop=True),
        }
    )
    kinds = [kind_in_words(kind) for kind in contrasts.kind.values]
    contrasts = contrasts.assign_coords(kind=text_coordinate(kinds, "kind", "what a direction is of"))
    return {
        _ABOVE: differences(contrasts, caption=f"Difference of shares, mean over matrices. Rater: {rater}.")
    }


def _character(result: xr.Dataset) -> dict[str, Any]:
    titles = {
        "fragments": ("Do directions hold pieces of words?", "share of tokens that continue a word"),
        "purity": ("Do directions hold one part of speech?", "share of the commonest part of speech"),
        "frequency": ("Do directions hold frequent tokens?", "mean log count in the texts"),
    }
    figures = {}
    for name, (title, height) in titles.items():
        if bool(result[name].notnull().any()) and _differs(result, name):
            figures[title] = _beside_rotations(result, name, height)
    return figures


def _differs(result: xr.Dataset, name: str) -> bool:
    """Whether there is anything to see: of a vocabulary of single characters every token continues a word."""
    values = np.concatenate([result[one].values.ravel() for one in (name, f"{name}_rotated")])
    return bool(np.nanmax(values) > np.nanmin(values))


def _beside_rotations(result: xr.Dataset, name: str, height: str) -> Any:
    """A panel for each kind: there may be more kinds than colours."""
    known = np.flatnonzero(result[name].notnull().any("layer").values)
    here = result.isel(kind=known)

    def rows(first: str, second: str | None) -> np.ndarray:
        values = here[first].transpose("kind", "layer").values
        beside = here[second].transpose("kind", "layer").values if second else np.full(values.shape, np.nan)
        return np.stack([values, beside], axis=1)

    values = xr.Dataset(
        {
            "value": quantity(
                rows(name, f"{name}_rotated"), "category row layer", height, result[name].attrs["units"]
            ),
            "low": quantity(rows(f"{name}_low", None), "category row layer", "lower end"),
            "high": quantity(rows(f"{name}_high", None), "category row layer", "upper end"),
        },
        coords={
            "category": text_coordinate(
                [kind_in_words(kind) for kind in here.kind.values], "category", "kind"
            ),
            "row": text_coordinate(
                ["singular directions", "rotations in the same space"], "row", "directions"
            ),
            "layer": result.layer,
        },
    )
    ends = np.concatenate([values[end].values.ravel() for end in ("value", "low", "high")])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    room = 0.08 * (high - low) or 0.5
    return rows_by_category(
        values,
        caption="Mean over the tokens of a direction's better end, and over directions. Bands: intervals over "
        "directions.",
    ).update_yaxes(range=[low - room, high + room])


def _with_lines(values: xr.DataArray) -> xr.Dataset:
    """A line for each kind, without intervals, which would cover one another."""
    known = values.isel(kind=np.flatnonzero(values.notnull().any("layer").values))
    return xr.Dataset({"value": known.reset_coords(drop=True)}).transpose("kind", "layer")


def _near_equal(result: xr.Dataset) -> Any:
    """A line for each matrix: what a head reads and what it writes have the same singular values."""
    of_heads = {"OV reads": "OV", "OV writes": "OV", "QK asks": "QK", "QK answers": "QK"}
    labels = [of_heads.get(str(kind), str(kind)) for kind in result.kind.values]
    firsts = [labels.index(label) for label in dict.fromkeys(labels)]
    values = result.near_equal.isel(kind=firsts).assign_coords(
        kind=text_coordinate([labels[first] for first in firsts], "kind", "matrix")
    )
    return curve_over_depth(
        _with_lines(values),
        caption="Such directions are defined only together. Both sides of a head's matrix share its values.",
    ).update_yaxes(rangemode="tozero")


def _pairs(result: xr.Dataset) -> dict[str, Any]:
    known = [
        name for name in LIKENESS if f"all_pairs_{name}" in result and result[f"pairs_{name}"].notnull().any()
    ]
    if not known:
        return {}
    columns = {
        column: quantity(
            np.stack([result[f"pairs_{name}{end}"].values for name in known]),
            "row layer",
            "share of pairs, less that of any two tokens",
        )
        for column, end in (("value", ""), ("low", "_low"), ("high", "_high"))
    }
    curve = xr.Dataset(
        columns,
        coords={
            "row": text_coordinate([LIKENESS[name] for name in known], "row", "what the two tokens share"),
            "layer": result.layer,
        },
    )
    shared = " and ".join(LIKENESS[name] for name in known)
    caption = (
        f"Of {shared}: pairs with the largest query-key product of each head, mean over heads. 0: no more than any two "
        "tokens."
    )
    return {"Which tokens do queries and keys join?": curve_over_depth(curve, caption=caption)}


def _sinks(result: xr.Dataset) -> dict[str, Any]:
    if "sink" not in result:
        return {}
    curve = as_curve(result, "sink")
    caption = (
        "On the texts of the removals; mean over heads and tokens. What rates over depth are compared with."
    )
    return {"Attention to the first token": curve_over_depth(curve, caption=caption)}


def _removals(result: xr.Dataset) -> dict[str, Any]:
    if "edit_selectivity" not in result:
        return {}
    curve = as_curve(result, "edit_selectivity")
    shown = xr.Dataset(
        {
            "difference": curve["value"],
            "low": curve["low"],
            "high": curve["high"],
            "p_adjusted": result["edit_p"].reset_coords(drop=True),
        }
    )
    names = [removed_in_words(result, str(name)) for name in result.edit.values]
    shown = shown.assign_coords(edit=text_coordinate(names, "edit", "removed direction"))
    caption = (
        "Right of 0, its own tokens' logits move more than those of others as likely. Mean over texts, bootstrap "
        "intervals."
    )
    return {_REMOVED: differences(shown, caption=caption)}
