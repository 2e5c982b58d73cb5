"""What syntax probes say, in sentences."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.experiments._contract import Claim
from layerscope.experiments._summaries import number_or_none
from layerscope.experiments._syntax_scores import named
from layerscope.results.words import restored, visible

_BELOW = 0.05


def claims(result: xr.Dataset) -> list[Claim]:
    """For each task its best depth beyond the word type; what training adds; and for labels of documents."""
    found = [_gain(result, task) for task in named(result, "gain")]
    found += [
        _selective(result, task) for task in named(result, "selectivity") if task.startswith("relation")
    ]
    if "label_accuracy" in result:
        found += [
            _label(result, str(kind))
            for kind in result.label_kind.values
            if np.isfinite(result.label_accuracy.sel(label_kind=kind)).any()
        ]
    return found


def _shown(text: object) -> str:
    return visible(restored(str(text)), blanks=False)


def _gain(result: xr.Dataset, task: str) -> Claim:
    one = result.sel(task=task)
    depth = int(one.gain.argmax("depth"))
    here = one.isel(depth=depth)
    gain, p = float(here.gain), float(here.p_adjusted)
    told = p < _BELOW and gain > 0
    accuracy, alone = float(here.accuracy), float(one.type_accuracy)
    text = (
        f"{_shown(task)}: read best at depth {depth} ({accuracy:.0%} right, {gain:+.0%} beyond the word type's "
        f"{alone:.0%}; {float(here.gain_met):+.0%} about words that were learnt from)"
        if told
        else f"{_shown(task)}: no depth tells more than the word type does ({alone:.0%} right), as far as can be told"
    )
    twin = ""
    if "untrained_gain" in one and np.isfinite(float(here.untrained_gain)):
        twin = (
            f"the untrained twin gains {float(here.untrained_gain):+.0%} there, and training adds "
            f"{float(here.training_adds):+.0%} "
            f"[{float(here.training_adds_low):+.0%}, {float(here.training_adds_high):+.0%}]; "
        )
    return Claim(
        text=text,
        value=gain,
        low=number_or_none(here.gain_low),
        high=number_or_none(here.gain_high),
        p_adjusted=p,
        distinguishable=told,
        caveat=f"{twin}p is adjusted for all depths and tasks; the interval is of that depth, over "
        f"{int(here.gain_n)} test documents; what can be read need not be used",
        select={"variable": "gain", "task": task, "depth": depth},
    )


def _selective(result: xr.Dataset, task: str) -> Claim:
    one = result.sel(task=task)
    depth = int(one.selectivity.argmax("depth"))
    here = one.isel(depth=depth)
    best = int(one.accuracy.argmax("depth"))
    also = "where it is also most accurate" if best == depth else f"but most accurate at depth {best}"
    return Claim(
        text=f"{_shown(task)}: most selective at depth {depth} ({float(here.selectivity):.0%} above its control), "
        f"{also}",
        value=float(here.selectivity),
        low=number_or_none(here.selectivity_low),
        high=number_or_none(here.selectivity_high),
        caveat="the control gives each word type a label by chance: a probe that learns words by heart does well on it",
        select={"variable": "selectivity", "task": task, "depth": depth},
    )


def _label(result: xr.Dataset, kind: str) -> Claim:
    one = result.sel(label_kind=kind)
    known = np.isfinite(one.label_accuracy.values).all(axis=0)
    since = int(one.since.values[np.flatnonzero(known)[-1]])
    far = one.sel(since=since)
    clear = ((far.label_accuracy_low > far.label_null_high) & (far.label_p < _BELOW)).values
    first = int(np.flatnonzero(clear)[0]) if clear.any() else None
    best = int(far.label_accuracy.argmax("depth"))
    at = best if first is None else first
    here = far.isel(depth=at)
    what = "genre of the passage" if kind == "genre" else "label that the passage announced"
    text = (
        f"{what}: {since} tokens on, no depth tells more than chance or the token alone, as far as can be told"
        if first is None
        else f"{what}: {since} tokens on, it can first be read at depth {first} ({float(here.label_accuracy):.0%} "
        f"right; best at depth {best}, {float(far.label_accuracy[best]):.0%})"
    )
    return Claim(
        text=text,
        value=float(here.label_accuracy),
        low=number_or_none(here.label_accuracy_low),
        high=number_or_none(here.label_accuracy_high),
        distinguishable=first is not None,
        p_adjusted=number_or_none(here.label_p),
        caveat=f"labels dealt to other passages give {float(here.label_null):.0%}, the token alone "
        f"{float(far.label_by_token):.0%}; over {int(here.label_accuracy_n)} passages; a depth counts where it is "
        "beyond both: p is of the gain over the token, adjusted for all depths and places",
        select={"variable": "label_accuracy", "label_kind": kind, "since": since, "depth": at},
    )
