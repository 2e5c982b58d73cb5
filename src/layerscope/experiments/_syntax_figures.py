"""Syntax probes in pictures, in the order in which a reader wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments._coordinates import text_coordinate
from layerscope.experiments._summaries import as_curve
from layerscope.experiments._syntax_rows import NEXT
from layerscope.experiments._syntax_scores import named
from layerscope.plots import curve_over_depth, rows_by_category

_SINCE = (1, 8, 64)  # three bands can be told apart


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Accuracy beside its baselines; gains; selectivity; codes; first pieces; labels of documents."""
    tasks = named(result, "accuracy")
    figures: dict[str, Any] = {
        "what can be read off a state, by depth": rows_by_category(
            _beside(result, tasks),
            caption="Share of test words whose label a linear probe reads off the state. The word type "
            "alone tells the same at every depth; the control's labels are dealt to word types by chance.",
        )
    }
    for name, wanted in (("this", False), ("the next", True)):
        some = [task for task in tasks if task.startswith(NEXT) == wanted]
        if some:
            figures[f"beyond the word itself: about {name} word"] = curve_over_depth(
                _rows(result, "gain", some),
                caption="Accuracy beyond that of the word type alone; 0 is no more than the word tells. "
                "Bands are over test documents.",
            )
    if named(result, "selectivity"):
        figures["is it learnt by heart? (selectivity)"] = curve_over_depth(
            _rows(result, "selectivity", named(result, "selectivity")),
            caption="Accuracy less accuracy on a control task in which word types have labels by chance.",
        )
    if "compression" in result:
        figures["how plainly is it there? (online code)"] = curve_over_depth(
            _rows(result, "compression", named(result, "compression")),
            caption="How many times shorter labels become when they are sent with probes that learn on the way.",
        )
    split = named(result, "first_piece_accuracy")
    if split:
        figures["words of several tokens: at the first token and at the last"] = rows_by_category(
            _pieces(result, split), caption="Only words of two tokens or more."
        )
    return figures | _documents(result)


def _beside(result: xr.Dataset, tasks: list[Any]) -> xr.Dataset:
    """Accuracy of the probe, of the twin's probe, of the word type, and on the control."""
    one = result.sel(task=tasks)
    depths = xr.ones_like(one.accuracy)
    rows = {"probe": as_curve(one, "accuracy")}
    if "untrained_accuracy" in one:
        rows["untrained twin"] = as_curve(one, "untrained_accuracy")
    rows["word type alone"] = as_curve(one, "type_accuracy").map(lambda column: column * depths)
    if "control_accuracy" in one:
        rows["control task"] = as_curve(one, "control_accuracy")
    return _panels(rows, tasks, "accuracy")


def _pieces(result: xr.Dataset, tasks: list[Any]) -> xr.Dataset:
    one = result.sel(task=tasks)
    rows = {
        "last token": as_curve(one, "last_piece_accuracy"),
        "first token": as_curve(one, "first_piece_accuracy"),
    }
    return _panels(rows, tasks, "accuracy")


def _panels(rows: dict[str, xr.Dataset], tasks: list[Any], long_name: str) -> xr.Dataset:
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
    joined["value"].attrs = {"long_name": long_name, "units": "1"}
    return joined


def _rows(result: xr.Dataset, name: str, tasks: list[Any]) -> xr.Dataset:
    one = result.sel(task=tasks)
    if f"{name}_low" in one:
        return as_curve(one, name).assign_coords(task=one.task)
    return xr.Dataset({"value": one[name].reset_coords(drop=True)}).assign_coords(task=one.task)


def _documents(result: xr.Dataset) -> dict[str, Any]:
    if "label_accuracy" not in result:
        return {}
    figures = {}
    titles = {
        "genre": "the passage's genre, by how much has been read",
        "announced": "an announced label, by how long ago it was announced",
    }
    for kind in result.label_kind.values:
        one = result.sel(label_kind=kind)
        since = [
            s for s in one.since.values if s in _SINCE and np.isfinite(one.label_accuracy.sel(since=s)).any()
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
            figures[titles[str(kind)]] = curve_over_depth(
                lines.assign(null=null),
                caption="Share of held-out passages whose label is read off one token's state. The dashed line: "
                "the same labels dealt to other passages.",
            )
    return figures
