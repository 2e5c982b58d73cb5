"""The further conclusions of a causal trace in pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_curve, head_name, places_in_words, text_coordinate
from layerscope.evidence.wording import ALPHA
from layerscope.experiments.causal_trace.conclude.metrics import metric_of
from layerscope.plots import curve_over_depth, differences, rows_by_category
from layerscope.results.escaping import restored

CLASSES = "Indirect effect by class of token"
_SUBJECT, _LAST = "last subject token", "last token"


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures of whatever the result holds."""
    figures: dict[str, Any] = {}
    for title, name, picture in (
        (CLASSES, "indirect_effect", _classes),
        ("At which depths do categories differ?", "depth_difference", _depths),
        ("Do matched prompts differ in crossover depth?", "paired_difference", _pairs),
        ("Recovery by attention and MLPs", "output_recovery", _outputs),
        ("Recovery lost by severing MLPs or attention", "severed_loss", _severed),
        ("Recovery by single heads", "head_recovery", _heads),
        ("Recovery with one subject token corrupted", "mean_alone_recovery", _one_by_one),
        ("Does the difference depend on the noise?", "dose_difference", _doses),
    ):
        if name in result and np.isfinite(result[name]).any():
            figures[title] = picture(result)
    return figures


def lines(result: xr.Dataset, name: str, chosen: dict[str, dict[str, str]], what: str) -> xr.Dataset:
    """Some cells of a variable as named lines over depth or layer."""
    columns: dict[str, Any] = {}
    for column, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
        cells = [result[f"{name}{suffix}"].sel(cell).reset_coords(drop=True) for cell in chosen.values()]
        columns[column] = xr.concat(cells, dim="line", coords="minimal", compat="override").assign_attrs(
            result[f"{name}{suffix}"].attrs
        )
    return xr.Dataset(columns).assign_coords(line=text_coordinate(list(chosen), "line", what))


def _classes(result: xr.Dataset) -> Any:
    known = [
        str(name)
        for name in result.token_class_name.values
        if np.isfinite(result.indirect_effect.sel(token_class_name=name)).any()
        and name != "before the subject"
    ]
    curves = lines(
        result, "indirect_effect", {name: {"token_class_name": name} for name in known}, "class of token"
    )
    metric, units = metric_of(result)
    curves["value"].attrs = {"long_name": f"mean change of {metric}", "units": units}
    return curve_over_depth(
        curves,
        caption="One token's clean state restored at one depth (average indirect effect); mean over prompts, with "
        "bootstrap bands.",
    )


def _depths(result: xr.Dataset) -> Any:
    values = as_curve(result, "depth_difference")
    found = []
    for pair in result.category_pair.values:
        here = result.sel(category_pair=pair)
        depths = here.depth.values[here.depth_p.values < ALPHA]
        found.append(f"{restored(str(pair))}: {places_in_words(depths, 'depth')}")
    return curve_over_depth(
        values,
        caption="Difference in recovery at the last token; bands are intervals of each depth on its own. "
        f"Significant after correction for all depths and pairs: {'; '.join(found)}.",
    )


def _pairs(result: xr.Dataset) -> Any:
    return differences(
        xr.Dataset(
            {
                "difference": result.paired_difference,
                "low": result.paired_difference_low,
                "high": result.paired_difference_high,
                "p_adjusted": result.paired_p,
            }
        ).reset_coords(drop=True),
        caption="Difference in crossover depth within matched pairs, with its interval; p by flipping signs.",
    )


_LINES = {
    "MLPs at the subject's last token": {"site": "mlp_out", "token_class_name": _SUBJECT},
    "attention at the subject's last token": {"site": "attn_out", "token_class_name": _SUBJECT},
    "MLPs at the last token": {"site": "mlp_out", "token_class_name": _LAST},
    "attention at the last token": {"site": "attn_out", "token_class_name": _LAST},
}
_MOST_PANELS = 9
_FEWEST_TOKENS, _MOST_DISTANCES = 3, 4


def _lines_by_category(
    result: xr.Dataset, name: str, chosen: dict[str, dict[str, str]], what: str, caption: str
) -> Any:
    """A panel for each category; one panel of all prompts where there is one category, or too many."""
    known = np.isfinite(result[f"category_{name}"].transpose("category", ...).values)
    filled = result.isel(category=np.flatnonzero(known.reshape(len(known), -1).any(axis=1)))
    if not 1 < filled.sizes["category"] <= _MOST_PANELS:
        return curve_over_depth(lines(result, name, chosen, what), caption=caption)
    columns = lines(filled, f"category_{name}", chosen, what).rename(line="row")
    return rows_by_category(columns.transpose("category", "row", ...), caption=caption)


def _outputs(result: xr.Dataset) -> Any:
    width = int(result.window)
    where = "in one layer" if width == 1 else f"over {width} layers round each one"
    return _lines_by_category(
        result,
        "output_recovery",
        _LINES,
        "what is restored",
        f"Mean recovery when what attention or MLPs add {where} is restored at one token. Windows show higher "
        "peaks than single layers.",
    )


def _severed(result: xr.Dataset) -> Any:
    chosen = {
        "its later MLPs": {"site": "mlp_out", "token_class_name": _SUBJECT},
        "its later attention": {"site": "attn_out", "token_class_name": _SUBJECT},
    }
    return _lines_by_category(
        result,
        "severed_loss",
        chosen,
        "what is severed",
        "Recovery by the state of the subject's last token at each depth, less the same with this token's "
        "MLPs or attention from there on kept as they were. Zero: the state works without them.",
    )


def _heads(result: xr.Dataset) -> Any:
    here = result.sel(token_class_name=_LAST)
    cells = {
        head_name(int(layer), int(head)): here.sel(layer=layer, head=head)
        for layer in result.layer.values
        for head in result["head"].values
        if np.isfinite(here.head_recovery.sel(layer=layer, head=head))
    }
    best = sorted(cells, key=lambda name: -abs(float(cells[name].head_recovery)))[:8]
    named = {
        "difference": "head_recovery",
        "low": "head_recovery_low",
        "high": "head_recovery_high",
        "p_adjusted": "head_p",
    }
    columns = {
        column: xr.Variable(("one",), [float(cells[name][variable]) for name in best], result[variable].attrs)
        for column, variable in named.items()
    }
    return differences(
        xr.Dataset(columns, coords={"one": text_coordinate(best, "one", "head")}),
        caption="The eight heads whose output at the last token restores most alone, with intervals over prompts; "
        f"picked from {len(cells)}, so their intervals are optimistic. p by flipping signs, adjusted for all heads.",
    )


def _one_by_one(result: xr.Dataset) -> Any:
    """A panel for each distance to the subject's end that enough prompts have."""
    numbers = result.mean_alone_recovery_n.max(["place", "depth"]).values
    shown = [
        distance
        for distance, n in zip(result.subject_end_distance.values, numbers, strict=True)
        if n >= _FEWEST_TOKENS and distance > 0
    ][:_MOST_DISTANCES] or [0]
    here = as_curve(result.sel(subject_end_distance=shown), "mean_alone_recovery")
    names = [
        f"{f'{distance} before the last' if distance else 'the last'} (n = {n})"
        for distance, n in zip(result.subject_end_distance.values, numbers, strict=True)
        if distance in shown
    ]
    values = here.drop_vars(["subject_end_distance", "place"]).rename(
        subject_end_distance="category", place="row"
    )
    return rows_by_category(
        values.assign_coords(
            category=text_coordinate(names, "category", "token of the subject that is corrupted"),
            row=text_coordinate(list(map(str, result.place.values)), "row", "token that is restored"),
        ),
        caption="Mean recovery with one token of the subject corrupted alone, the one so many tokens before its last: "
        "by its own state, by that of the subject's last token, and by that of the prompt's last token.",
    )


def _doses(result: xr.Dataset) -> Any:
    names: list[str] = []
    columns: dict[str, list[float]] = {name: [] for name in ("difference", "low", "high", "p_adjusted")}
    for pair in result.dose_contrast.values:
        for dose in result.dose.values:
            here = result.sel(dose_contrast=pair, dose=dose)
            names.append(f"{float(dose):g}× noise: {restored(str(pair))}")
            for name, values in columns.items():
                values.append(float(here[f"dose_{name}"]))
    attributes = {"difference": result.dose_difference.attrs}
    return differences(
        xr.Dataset(
            {
                name: xr.Variable(("one",), np.array(v), attributes.get(name, {}))
                for name, v in columns.items()
            },
            coords={"one": text_coordinate(names, "one", "dose and pair")},
        ),
        caption="Difference in crossover depth at each noise level; Holm's correction over pairs.",
    )
