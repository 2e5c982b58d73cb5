"""What syntax probes say, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import Finding, at_depths, finding, strongest
from layerscope.experiments.syntax_probe.conclude import MAIN, known_tasks, task_in_words
from layerscope.results.escaping import restored, visible

_BELOW = 0.05
_BY_TYPE: Untrained = (
    "null",
    "states of fresh weights know a word by its type, and its neighbours at random",
)
_CARRIED: Untrained = ("effect", "attention of fresh weights carries a label that was read to later tokens")


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """For each task its best depth beyond the word type, and of least loss; selectivity; labels of documents."""
    for task in sorted(known_tasks(result, "gain"), key=_main_first):
        yield _gain(result, task)
    for task in sorted(known_tasks(result, "loss"), key=_main_first):
        yield _least_loss(result, task)
    for task in known_tasks(result, "selectivity"):
        if task.startswith("relation"):
            yield _selective(result, task)
    if "label_accuracy" in result:
        for kind in map(str, result.label_kind.to_numpy()):
            if result.label_accuracy.sel(label_kind=kind).notnull().any():
                yield _label(result, kind)


def _main_first(task: str) -> bool:
    return task != MAIN


def _gain(result: xr.Dataset, task: str) -> Claim:
    gain = strongest(result, "gain", "depth", p="p_adjusted", unit="point", units="documents", task=task)
    cell: dict[str, Any] = {"task": task, "depth": gain.select["depth"]}
    accuracy, alone = (
        finding(result, name, **cell if name == "accuracy" else {"task": task})
        for name in ("accuracy", "type_accuracy")
    )
    met = finding(result, "gain_met", unit="point", **cell)
    what = task_in_words(task)
    return replace(gain, beyond=gain.value > 0).claim(
        f"{what} is most decodable beyond the word type at depth {gain.select['depth']}: accuracy "
        f"{_like(gain, accuracy)}, {gain.size} above the word type's {_like(gain, alone)}",
        nothing=f"gain over the word type in decoding {what}, at any depth",
        caveat=f"{met.estimate} for words seen in training{_of_training(result, gain, cell)}",
        untrained=_BY_TYPE,
    )


def _like(found: Finding, share: Finding) -> str:
    """A share, to the digit of a difference of shares."""
    return replace(found, unit="share").other(share.value)


def _of_training(result: xr.Dataset, gain: Finding, cell: dict[str, Any]) -> str:
    """What training adds at a depth, where an untrained twin was run."""
    if not gain.twins:
        return ""
    adds = finding(result, "training_adds", unit="point", **cell)
    return f"; training adds {adds.estimate}"


def _least_loss(result: xr.Dataset, task: str) -> Claim:
    """The grammar post's measure: at which depth the loss of the probe is least."""
    place = finding(result, "best_depth", unit="1", units="documents", task=task)
    loss = finding(result, "loss", units="documents", task=task, depth=int(place.value))
    alone = finding(result, "type_loss", task=task)
    return place.claim(
        f"the probe's loss on {task_in_words(task)} is least at depth {place.estimate}",
        caveat=f"{loss.estimate} there, and {loss.other(alone.value)} by the word type alone",
    )


def _selective(result: xr.Dataset, task: str) -> Claim:
    above = strongest(result, "selectivity", "depth", unit="point", units="documents", task=task)
    best = int(result.accuracy.sel(task=task).argmax("depth"))
    return above.claim(
        f"{task_in_words(task)} is most selective at depth {above.select['depth']}: accuracy {above.size} "
        f"{above.which('above', 'below')} its control task's",
        caveat=f"accuracy is highest at depth {best}",
    )


def _label(result: xr.Dataset, kind: str) -> Claim:
    one = result.sel(label_kind=kind)
    reached = one.label_passages > one.label_passages.max() / 2
    known = one.since[one.label_accuracy.notnull().all("depth") & reached].to_numpy()
    near, since = int(known[0]), int(known[-1])
    sure, early = (_significant(one.sel(since=steps)) for steps in (since, near))
    best = int(one.label_accuracy.sel(since=since).argmax("depth"))
    cell: dict[str, Any] = {"label_kind": kind, "since": since, "depth": sure[0] if sure else best}
    gain = finding(
        result,
        "label_gain",
        p="label_p",
        unit="point",
        units="passages",
        picked=["since", "depth"],
        **cell,
    )
    right, dealt, alone, top = (
        _like(gain, finding(result, name, **{str(dim): here[str(dim)] for dim in result[name].dims}))
        for name, here in (
            ("label_accuracy", cell),
            ("label_null", cell),
            ("label_by_token", cell),
            ("label_accuracy", cell | {"depth": best}),
        )
    )
    what = (
        "label that the passage announces"
        if kind == "announced"
        else f"{visible(restored(kind), blanks=False)} of the passage"
    )
    soon = f" ({_after(near)}: {at_depths(early)})" * (near < since)
    return replace(gain, beyond=bool(sure)).claim(
        f"{what} is decodable {_after(since)} {at_depths(sure)}{soon}: accuracy {right} at depth {cell['depth']}, "
        f"{gain.size} above the token's own {alone}",
        nothing=f"decodability of the {what} beyond chance and the token alone, {_after(since)}, at any depth",
        caveat=f"labels of other passages give {dealt} there; accuracy is highest at depth {best} with {top}",
        untrained=_CARRIED,
    )


def _after(since: int) -> str:
    return f"{since} token{'s' * (since > 1)} after it is given"


def _significant(there: xr.Dataset) -> list[int]:
    """Depths at which a label is decodable beyond chance and beyond the token."""
    clear = (there.label_accuracy_low > there.label_null_high) & (there.label_p < _BELOW)
    return [int(depth) for depth in np.flatnonzero(clear)]
