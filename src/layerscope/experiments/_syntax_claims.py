"""What syntax probes say, in sentences."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence.findings import number_or_none
from layerscope.evidence.places import at_depths
from layerscope.experiments._syntax_scores import named
from layerscope.results.schema import read_json
from layerscope.results.words import restored, visible

_BELOW = 0.05


def claims(result: xr.Dataset) -> list[Claim]:
    """For each task its best depth beyond the word type; what training adds; and for labels of documents."""
    found = [_gain(result, task) for task in named(result, "gain")]
    found.append(_least_loss(result))
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


def _signed(share: float) -> str:
    """Hundredths with their sign: +13, −2, 0."""
    if np.isnan(share):  # about words that were learnt from, where no tested word was
        return "an unknown number of"
    hundredths = round(100 * share)
    return f"{hundredths:+d}".replace("-", "−") if hundredths else "0"


def _points(share: float) -> str:
    """A difference of shares, in percentage points."""
    one = abs(share) < 1 and abs(round(100 * share)) == 1  # False where it is not known
    return f"{_signed(share)} point{'s' * (not one)}"


def _gain(result: xr.Dataset, task: str) -> Claim:
    one = result.sel(task=task)
    clear = (one.p_adjusted < _BELOW) & (one.gain > 0)
    depth = int(one.gain.where(clear if clear.any() else True).argmax("depth"))
    here = one.isel(depth=depth)
    gain, p = float(here.gain), float(here.p_adjusted)
    told = p < _BELOW and gain > 0
    accuracy, alone = float(here.accuracy), float(one.type_accuracy)
    text = (
        f"{_shown(task)}: read best at depth {depth} ({accuracy:.0%} right, {_points(gain)} beyond the word type's "
        f"{alone:.0%}; {_points(float(here.gain_met))} about words that were learnt from)"
        if told
        else f"{_shown(task)}: no depth tells more than the word type does ({alone:.0%} right), as far as can be told"
    )
    twin = ""
    if "untrained_gain" in one and np.isfinite(float(here.untrained_gain)):
        twin = (
            f"the untrained twin's gain there is {_points(float(here.untrained_gain))}, and training adds "
            f"{_points(float(here.training_adds))} "
            f"[{_signed(float(here.training_adds_low))}, {_signed(float(here.training_adds_high))}]; "
        )
    return Claim(
        text=text,
        value=gain,
        low=number_or_none(here.gain_low),
        high=number_or_none(here.gain_high),
        p_adjusted=p,
        significant=told,
        caveat=f"{twin}p is adjusted for all depths and tasks; the interval is of that depth, over "
        f"{int(here.gain_n)} test documents; what can be read need not be used",
        select={"variable": "gain", "task": task, "depth": depth},
    )


def _least_loss(result: xr.Dataset) -> Claim:
    """The grammar post's measure: at how many blocks the loss of the probe is least."""
    level = float(read_json(result, "level"))
    each = [result.sel(task=task) for task in named(result, "loss")]
    depths = [f"{_shown(one.task.item())} {int(one.best_depth)}" for one in each]
    ends = [
        f"{_shown(one.task.item())} {int(one.best_depth_low)} to {int(one.best_depth_high)} "
        f"({float(one.loss.isel(depth=int(one.best_depth))):.2f} nat; the word type alone {float(one.type_loss):.2f})"
        for one in each
    ]
    return Claim(
        text=f"loss is least at depth: {', '.join(depths)}",
        caveat=f"{level:.0%} of resamples of test documents: {'; '.join(ends)}",
        select={"variable": "best_depth"},
    )


def _selective(result: xr.Dataset, task: str) -> Claim:
    one = result.sel(task=task)
    depth = int(one.selectivity.argmax("depth"))
    here = one.isel(depth=depth)
    best = int(one.accuracy.argmax("depth"))
    also = "where it is also most accurate" if best == depth else f"but most accurate at depth {best}"
    return Claim(
        text=f"{_shown(task)}: most selective at depth {depth} ({_points(float(here.selectivity))} above its control), "
        f"{also}",
        value=float(here.selectivity),
        low=number_or_none(here.selectivity_low),
        high=number_or_none(here.selectivity_high),
        caveat="the control gives each word type a label by chance: a probe that learns words by heart does well on it",
        select={"variable": "selectivity", "task": task, "depth": depth},
    )


def _label(result: xr.Dataset, kind: str) -> Claim:
    one = result.sel(label_kind=kind)
    known = np.flatnonzero(np.isfinite(one.label_accuracy.values).all(axis=0))
    known = known[one.label_passages.values[known] > one.label_passages.values.max() / 2]
    near, since = (int(one.since.values[known[end]]) for end in (0, -1))
    far, told = one.sel(since=since), _told(one.sel(since=since))
    best = int(far.label_accuracy.argmax("depth"))
    at = told[0] if told else best
    here = far.isel(depth=at)
    what = "label that the passage announced" if kind == "announced" else f"{_shown(kind)} of the passage"
    early = _told(one.sel(since=near))
    first = f"{_tokens(near)}, it can be read {at_depths(early) if early else 'at no depth'}; " * (
        near < since
    )
    right = float(here.label_accuracy)
    last = (
        f"it can be read {at_depths(told)} ({right:.0%} right at depth {at}; "
        f"highest at depth {best}, {float(far.label_accuracy[best]):.0%})"
        if told
        else "no depth tells more than chance or the token alone, as far as can be told"
    )
    return Claim(
        text=f"{what}: {first}{_tokens(since)}, {last}",
        value=right,
        low=number_or_none(here.label_accuracy_low),
        high=number_or_none(here.label_accuracy_high),
        significant=bool(told),
        p_adjusted=number_or_none(here.label_p),
        caveat=f"the numbers are of depth {at}, {_tokens(since)}; labels dealt to other passages give "
        f"{float(here.label_null):.0%}, the token alone {float(far.label_by_token):.0%}; over "
        f"{int(far.label_passages)} passages; a depth counts where it is beyond both: p is of the gain over the "
        "token, adjusted for all depths and places",
        select={"variable": "label_accuracy", "label_kind": kind, "since": since, "depth": at},
    )


def _tokens(since: int) -> str:
    return f"{since} token{'s' * (since > 1)} on"


def _told(there: xr.Dataset) -> list[int]:
    """Depths at which a label is told beyond chance and beyond the token."""
    clear = (there.label_accuracy_low > there.label_null_high) & (there.label_p < _BELOW)
    return [int(depth) for depth in np.flatnonzero(clear.values)]
