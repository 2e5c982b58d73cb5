"""Syntax probes in pictures, in the order in which a reader wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_curve, level_of, text_coordinate
from layerscope.experiments.syntax_probe.conclude import known_tasks, task_in_words
from layerscope.experiments.syntax_probe.items.design import NEXT
from layerscope.plots import curve_over_depth, leading, rows_by_category
from layerscope.results.escaping import restored, visible
from layerscope.results.schema import read_json

_TITLES = {
    "this": "Syntax beyond the word type: this word",
    "the next": "Syntax beyond the word type: the next",
}
_SINCE = (1, 8, 64)  # more bands would hide each other


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Accuracy and its baselines; gains; loss; macro-F1; selectivity; codes; first pieces; labels of documents."""
    tasks, bands = (
        known_tasks(result, "accuracy"),
        f"Bands: {level_of(result):.0%} intervals over test documents.",
    )
    figures: dict[str, Any] = {
        "What is decodable at each depth?": rows_by_category(
            _scores(result, tasks),
            caption="Share of test words whose label a linear probe of the state gets right. The word type alone is "
            f"right as often at every depth; the control's labels are dealt to word types by chance. {bands}",
        )
    }
    for name, some in _this_and_next(tasks).items():
        figures[_TITLES[name]] = curve_over_depth(
            _rows(result, "gain", some, nothing="word type alone"),
            caption="Accuracy of a linear probe less that of the word type alone. Where a line rises, context comes "
            f"in. {bands}",
        )
    figures["Loss of the probe"] = rows_by_category(
        _scores(result, tasks, "loss"),
        caption=f"Mean −log p of the true label of test words. Losses of different tasks do not compare. {bands}",
    )
    figures["Macro-F1"] = rows_by_category(
        _panels({"probe": as_curve(result.sel(task=tasks), "macro_f1")}, tasks, "macro_f1", result),
        caption=f"Mean over labels of F1, so that rare labels weigh as much as frequent ones. {bands}",
    )
    figures |= _by_heart(result, bands) | _online_codes(result) | _split_words(result, bands)
    figures |= _documents(result)
    return leading(figures, list(_TITLES.values()))


def _this_and_next(tasks: list[str]) -> dict[str, list[str]]:
    """Tasks about this word, and about the next; only what there is: seven lines in one figure share colours."""
    parts = {
        name: [task for task in tasks if task.startswith(NEXT) == wanted]
        for name, wanted in (("this", False), ("the next", True))
    }
    return {name: some for name, some in parts.items() if some}


def _by_heart(result: xr.Dataset, bands: str) -> dict[str, Any]:
    return {
        f"Selectivity: {name} word": curve_over_depth(
            _rows(result, "selectivity", some, nothing="the control"),
            caption="Accuracy less accuracy on a control task in which word types have labels by chance: high where "
            f"the probe does not just memorise words. {bands}",
        )
        for name, some in _this_and_next(known_tasks(result, "selectivity")).items()
    }


def _online_codes(result: xr.Dataset) -> dict[str, Any]:
    return {
        f"Compression by an online code: {name} word": curve_over_depth(
            _compression(result, some),
            caption="How many times shorter labels become when they are sent with probes that learn on the way. "
            "At 1 nothing is saved over a code in which all labels cost alike; below it, probes mislead. "
            "Documents in one order for each draw: no intervals.",
        )
        for name, some in _this_and_next(known_tasks(result, "compression")).items()
    }


def _split_words(result: xr.Dataset, bands: str) -> dict[str, Any]:
    split = known_tasks(result, "first_piece_accuracy")
    if not split:
        return {}
    one, several = result.sel(task=split), read_json(result, "several_tokens", None)
    rows = {f"{piece} token": as_curve(one, f"{piece}_piece_accuracy") for piece in ("last", "first")}
    count = "" if several is None else f": {several} of {result.sizes['tested']} test words"
    return {
        "Words of several tokens: first and last token": rows_by_category(
            _panels(rows, split, "accuracy", result),
            caption=f"Only words of two tokens or more{count}. {bands}",
        )
    }


def _scores(result: xr.Dataset, tasks: list[str], score: str = "accuracy") -> xr.Dataset:
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


def _panels(rows: dict[str, xr.Dataset], tasks: list[str], score: str, result: xr.Dataset) -> xr.Dataset:
    plain = [
        row.transpose("task", "depth").drop_vars(
            [name for name in row.coords if name not in ("task", "depth")]
        )
        for row in rows.values()
    ]
    joined = xr.concat(plain, dim="row", join="override", combine_attrs="drop").rename(task="category")
    joined = joined.assign_coords(
        row=text_coordinate(list(rows), "row", "what is read"),
        category=text_coordinate([task_in_words(task) for task in tasks], "category", "what is asked"),
    )
    joined["value"].attrs = {name: result[score].attrs[name] for name in ("long_name", "units")}
    return joined


def _rows(result: xr.Dataset, name: str, tasks: list[str], *, nothing: str) -> xr.Dataset:
    """Lines of a score; a dashed one at 0, where `nothing` says what that would be."""
    one = result.sel(task=tasks)
    return _named(as_curve(one, name, null=_level(one, 0.0, nothing)), tasks)


def _compression(result: xr.Dataset, tasks: list[str]) -> xr.Dataset:
    one = result.sel(task=tasks)
    lines = xr.Dataset({"value": one["compression"].reset_coords(drop=True)})
    return _named(lines.assign(null=_level(one, 1.0, "all labels alike")), tasks)


def _named(lines: xr.Dataset, tasks: list[str]) -> xr.Dataset:
    """Lines by what is asked; of this word or the next, which the title says."""
    names = [task_in_words(task.removeprefix(NEXT)) for task in tasks]
    return lines.assign_coords(task=text_coordinate(names, "task", "what is asked"))


def _level(one: xr.Dataset, at: float, name: str) -> xr.DataArray:
    return xr.DataArray(np.full(one.sizes["depth"], at), dims="depth", attrs={"name": name})


# -- labels of documents --------------------------------------------------------------------------------


def _documents(result: xr.Dataset) -> dict[str, Any]:
    if "label_accuracy" not in result:
        return {}
    found = {str(kind): _label(result, str(kind)) for kind in result.label_kind.to_numpy()}
    return {_title(kind): figure for kind, figure in found.items() if figure is not None}


def _title(kind: str) -> str:
    if kind == "announced":
        return "When is an announced label decodable?"
    return f"When is the passage's {visible(restored(kind), blanks=False)} decodable?"


def _label(result: xr.Dataset, kind: str) -> Any:
    one = result.sel(label_kind=kind)
    known = one.label_accuracy.notnull().any("depth")
    since = [int(steps) for steps in one.since[known].to_numpy() if steps in _SINCE]
    if not since:
        return None
    some = one.sel(since=since)
    names = [f"{steps} token{'s' * (steps > 1)}" for steps in since]
    lines = as_curve(some, "label_accuracy").transpose("since", "depth")
    null = some.label_null.mean("since").reset_coords(drop=True)
    null.attrs["name"] = "labels dealt to other passages"
    return curve_over_depth(
        lines.assign_coords(since=text_coordinate(names, "since", "tokens since")).assign(null=null),
        caption=f"Share of {int(some.label_passages.max())} held-out passages whose label a probe of one token's state "
        f"gets right, {_listed(since)} after the label is given. Dashed: mean over these places, with labels dealt to "
        f"others. Bands: {level_of(result):.0%} intervals over passages.",
    )


def _listed(since: list[int]) -> str:
    """1, 8 or 64 tokens; only the places that are drawn."""
    first, last = ", ".join(str(s) for s in since[:-1]), since[-1]
    return f"{first} or {last} tokens" if first else f"{last} token{'s' * (last > 1)}"
