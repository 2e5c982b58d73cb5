"""What syntax probes say, in sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import Finding, at_depths, finding, strongest, wording
from layerscope.experiments._syntax_scores import named
from layerscope.results.escaping import restored, visible
from layerscope.results.schema import read_json

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


def _gain(result: xr.Dataset, task: str) -> Claim:
    gain = strongest(result, "gain", "depth", p="p_adjusted", unit="point", units="documents", task=task)
    depth = gain.select["depth"]
    accuracy, alone, met = (
        finding(result, name, unit=unit, task=task, depth=depth)
        for name, unit in (("accuracy", "share"), ("type_accuracy", "share"), ("gain_met", "point"))
    )
    what = _shown(task)
    return replace(gain, beyond=gain.value > 0).claim(
        f"{what} is decodable beyond the word type best at depth {depth}: accuracy {_like(gain, accuracy.value)}, "
        f"{gain.size} above the word type's {_like(gain, alone.value)}",
        nothing=f"gain over the word type in decoding {what}, at any depth",
        caveat=f"{_of_training(result, task, depth)}for words seen in training {met.estimate}; p is adjusted for all "
        "depths and tasks; what is decodable need not be used",
    )


def _like(found: Finding, share: float) -> str:
    """A share, to the digit of a difference of shares."""
    return replace(found, unit="share").other(share)


def _of_training(result: xr.Dataset, task: str, depth: int) -> str:
    """What training adds at a depth, where an untrained twin was run."""
    if "untrained_gain" not in result:
        return ""
    twin = finding(result, "untrained_gain", unit="point", task=task, depth=depth)
    adds = finding(result, "training_adds", unit="point", task=task, depth=depth)
    if not twin.known:
        return ""
    return (
        f"the untrained twin's gain there is {adds.other(twin.value)}, and training adds {adds.estimate} "
        f"({adds.interval}); "
    )


def _least_loss(result: xr.Dataset) -> Claim:
    """The grammar post's measure: at which depth the loss of the probe is least."""
    level = float(read_json(result, "level"))
    each = [result.sel(task=task) for task in named(result, "loss")]
    depths = [f"{_shown(one.task.item())} {int(one.best_depth)}" for one in each]
    ends = [
        f"{_shown(one.task.item())} {int(one.best_depth_low)} to {int(one.best_depth_high)} "
        f"({float(one.loss.isel(depth=int(one.best_depth))):.2f} nat; the word type alone {float(one.type_loss):.2f})"
        for one in each
    ]
    return Claim(
        text=wording.sentence(f"loss of the probes is least at depth: {', '.join(depths)}"),
        caveat=f"{level:.0%} of resamples of test documents: {'; '.join(ends)}",
        select={"variable": "best_depth"},
    )


def _selective(result: xr.Dataset, task: str) -> Claim:
    above = strongest(result, "selectivity", "depth", unit="point", units="documents", task=task)
    depth, best = above.select["depth"], int(result.accuracy.sel(task=task).argmax("depth"))
    also = "where it is also most accurate" if best == depth else f"but most accurate at depth {best}"
    return above.claim(
        f"{_shown(task)} is most selective at depth {depth} ({above.estimate} above its control task), {also}",
        caveat="the control gives each word type a label by chance, so a probe that memorises words does well on it",
    )


def _label(result: xr.Dataset, kind: str) -> Claim:
    one = result.sel(label_kind=kind)
    known = np.flatnonzero(np.isfinite(one.label_accuracy.values).all(axis=0))
    known = known[one.label_passages.values[known] > one.label_passages.values.max() / 2]
    near, since = (int(one.since.values[known[end]]) for end in (0, -1))
    far, sure = one.sel(since=since), _significant(one.sel(since=since))
    best = int(far.label_accuracy.argmax("depth"))
    depth = sure[0] if sure else best
    right = finding(
        result,
        "label_accuracy",
        p="label_p",
        unit="share",
        units="passages",
        n=("label_passages",),
        label_kind=kind,
        since=since,
        depth=depth,
    )
    what = "label that the passage announced" if kind == "announced" else f"{_shown(kind)} of the passage"
    early = _significant(one.sel(since=near))
    soon = f" ({_tokens(near)}: {at_depths(early)})" * (near < since)
    return replace(right, beyond=bool(sure)).claim(
        f"{what} is decodable {_tokens(since)} {at_depths(sure)}{soon}: accuracy {right.estimate} at depth {depth}, "
        f"highest at depth {best} with {right.other(float(far.label_accuracy[best]))}",
        nothing=f"{what} beyond chance and the token alone, {_tokens(since)}, at any depth",
        caveat=f"at depth {depth}, labels of other passages give {float(far.label_null[depth]):.0%} and the token "
        "alone "
        f"{float(far.label_by_token):.0%}; p is of the gain over the token, adjusted for all depths and places",
    )


def _tokens(since: int) -> str:
    return f"{since} token{'s' * (since > 1)} on"


def _significant(there: xr.Dataset) -> list[int]:
    """Depths at which a label is decodable beyond chance and beyond the token."""
    clear = (there.label_accuracy_low > there.label_null_high) & (there.label_p < _BELOW)
    return [int(depth) for depth in np.flatnonzero(clear.values)]
