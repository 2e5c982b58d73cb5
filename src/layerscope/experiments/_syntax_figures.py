"""Syntax probes in pictures, in the order in which a reader wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import text_coordinate
from layerscope.evidence.curves import as_curve
from layerscope.experiments._syntax_rows import NEXT
from layerscope.experiments._syntax_scores import named
from layerscope.plots import curve_over_depth, rows_by_category
from layerscope.results.escaping import restored, visible
from layerscope.results.schema import read_json

_SINCE = (1, 8, 64)  # three bands can be told apart


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Accuracy beside its baselines; gains; selectivity; codes; first pieces; labels of documents."""
    tasks = named(result, "accuracy")
    bands = f"Bands: {float(read_json(result, 'level')):.0%} intervals over test documents."
    figures: dict[str, Any] = {
        "what can be read off a state, by depth": rows_by_category(
            _beside(result, tasks),
            caption="Share of test words whose label a linear probe reads off the state. The word type "
            f"alone tells the same at every depth; the control's labels are dealt to word types by chance. {bands}",
        )
    }
    for name, some in _apart(tasks).items():
        figures[f"beyond the word itself: about {name} word"] = curve_over_depth(
            _rows(result, "gain", some, nothing="word type alone"),
            caption=f"Accuracy beyond that of the word type alone. {bands}",
        )
    figures["loss of the probe, by depth"] = rows_by_category(
        _beside(result, tasks, "loss"),
        caption=f"Mean −log p of the true label of test words. Losses of different tasks do not compare. {bands}",
    )
    figures["macro-F1, by depth"] = rows_by_category(
        _panels({"probe": as_curve(result.sel(task=tasks), "macro_f1")}, tasks, "macro_f1", result),
        caption=f"Mean over labels of F1, so that rare labels weigh as much as frequent ones. {bands}",
    )
    # Lines about this word and about the next apart: seven in one figure would share colours.
    for name, some in _apart(named(result, "selectivity")).items():
        figures[f"is it learnt by heart? (selectivity, {name} word)"] = curve_over_depth(
            _rows(result, "selectivity", some, nothing="the control"),
            caption=f"Accuracy less accuracy on a control task in which word types have labels by chance. {bands}",
        )
    for name, some in _apart(named(result, "compression")).items():
        figures[f"how plainly is it there? (online code, {name} word)"] = curve_over_depth(
            _compression(result, some),
            caption="How many times shorter labels become when they are sent with probes that learn on the way. "
            "At 1 nothing is saved over a code in which all labels cost alike; below it, probes mislead. "
            "Documents in one order for each draw: no intervals.",
        )
    split = named(result, "first_piece_accuracy")
    if split:
        figures["words of several tokens: at the first token and at the last"] = rows_by_category(
            _pieces(result, split), caption=f"Only words of two tokens or more{_several(result)}. {bands}"
        )
    return figures | _documents(result)


def _apart(tasks: list[Any]) -> dict[str, list[Any]]:
    """Tasks about this word, and about the next; only what there is."""
    apart = {
        name: [task for task in tasks if task.startswith(NEXT) == wanted]
        for name, wanted in (("this", False), ("the next", True))
    }
    return {name: some for name, some in apart.items() if some}


def _several(result: xr.Dataset) -> str:
    several = read_json(result, "several_tokens", None)  # runs of earlier versions did not count them
    return "" if several is None else f": {several} of {result.sizes['tested']} test words"


def _beside(result: xr.Dataset, tasks: list[Any], score: str = "accuracy") -> xr.Dataset:
    """A score of the probe, of the twin's probe, of the word type, and (accuracy) on the control."""
    one = result.sel(task=tasks)
    depths = xr.ones_like(one[score])
    rows = {"probe": as_curve(one, score)}
    if f"untrained_{score}" in one:
        rows["untrained twin"] = as_curve(one, f"untrained_{score}")
    rows["word type alone"] = as_curve(one, f"type_{score}").map(lambda column: column * depths)
    if f"control_{score}" in one:
        rows["control task"] = as_curve(one, f"control_{score}")
    return _panels(rows, tasks, score, result)


def _pieces(result: xr.Dataset, tasks: list[Any]) -> xr.Dataset:
    one = result.sel(task=tasks)
    rows = {
        "last token": as_curve(one, "last_piece_accuracy"),
        "first token": as_curve(one, "first_piece_accuracy"),
    }
    return _panels(rows, tasks, "accuracy", result)


def _panels(rows: dict[str, xr.Dataset], tasks: list[Any], score: str, result: xr.Dataset) -> xr.Dataset:
    plain = [
        row.transpose("task", "depth").drop_vars(
            [name for name in row.coords if name not in ("task", "depth")]
        )
        for row in rows.values()
    ]
    joined = xr.concat(plain, dim="row", join="override", combine_attrs="drop").rename(task="category")
    joined = joined.assign_coords(
        row=text_coordinate(list(rows), "row", "what is read"),
        category=xr.Variable(("category",), np.array(tasks), {"long_name": "what is asked"}),
    )
    joined["value"].attrs = {name: result[score].attrs[name] for name in ("long_name", "units")}
    return joined


def _rows(result: xr.Dataset, name: str, tasks: list[Any], *, nothing: str) -> xr.Dataset:
    """Lines of a score; a dashed one at 0, where `nothing` says what that would be."""
    one = result.sel(task=tasks)
    return as_curve(one, name, null=_level(one, 0.0, nothing)).assign_coords(task=one.task)


def _compression(result: xr.Dataset, tasks: list[Any]) -> xr.Dataset:
    one = result.sel(task=tasks)
    lines = xr.Dataset({"value": one["compression"].reset_coords(drop=True)})
    return lines.assign(null=_level(one, 1.0, "all labels alike")).assign_coords(task=one.task)


def _level(one: xr.Dataset, at: float, name: str) -> xr.DataArray:
    return xr.DataArray(np.full(one.sizes["depth"], at), dims="depth", attrs={"name": name})


def _listed(since: list[int]) -> str:
    """1, 8 or 64 tokens; only the places that are drawn."""
    first, last = ", ".join(str(s) for s in since[:-1]), since[-1]
    return f"{first} or {last} tokens" if first else f"{last} token{'s' * (last > 1)}"


def _documents(result: xr.Dataset) -> dict[str, Any]:
    if "label_accuracy" not in result:
        return {}
    figures = {}
    for kind in result.label_kind.values:
        one = result.sel(label_kind=kind)
        since = [
            int(s)
            for s in one.since.values
            if s in _SINCE and np.isfinite(one.label_accuracy.sel(since=s)).any()
        ]
        if since:
            some = one.sel(since=since)
            lines = (
                as_curve(some, "label_accuracy")
                .transpose("since", "depth")
                .assign_coords(
                    since=text_coordinate(
                        [f"{s} token{'s' if s > 1 else ''}" for s in since], "since", "tokens since"
                    )
                )
            )
            null = some.label_null.mean("since").reset_coords(drop=True)
            null.attrs["name"] = "labels dealt to other passages"
            shown = visible(restored(str(kind)), blanks=False)
            title = (
                "an announced label, by how long ago it was announced"
                if kind == "announced"
                else f"the passage's {shown}, by how much has been read"
            )
            figures[title] = curve_over_depth(
                lines.assign(null=null),
                caption=f"Share of {int(some.label_passages.max())} held-out passages whose label is read off one "
                f"token's state, {_listed(since)} on. Dashed: mean over these places, with labels dealt to others. "
                f"Bands: {float(read_json(result, 'level')):.0%} intervals over passages.",
            )
    return figures
