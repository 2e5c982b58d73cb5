"""What breaks without a layer, in sentences, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence.findings import number_or_none
from layerscope.evidence.groups import PASSAGES
from layerscope.experiments._ablation_curves import EARLIER, LATER, curve
from layerscope.results.words import stored


def claims(result: xr.Dataset) -> list[Claim]:
    """For each ablation the most and least harmful block; then the null, and what later tokens use."""
    names = [str(name) for name in result.ablation.values]
    return [
        *(
            claim
            for name in names
            if name not in ("random push", f"skip{EARLIER}")
            for claim in _extremes(result, name)
        ),
        *_excess(result),
        *(_later(result) if {"skip", "skip earlier"} <= set(names) else ()),
    ]


def _extremes(result: xr.Dataset, name: str) -> Iterator[Claim]:
    group = LATER if name.endswith(EARLIER) else PASSAGES
    found, same = curve(result, name, group=group), curve(result, name, "same_top", group)
    if not np.isfinite(found.value.values).any():
        return
    worst, least = int(np.nanargmax(found.value.values)), int(np.nanargmin(found.value.values))
    negligible = float(result.attrs["negligible"])
    inert = int((found.high.values < negligible).sum())
    read = ", read at the later tokens" if group == LATER else ""
    none = (
        f"; {inert} of {result.sizes['layer']} blocks make{'s' * (inert == 1)} no difference (below {negligible:g} nat)"
        if inert
        else ""
    )
    yield Claim(
        text=f"{name}{read}: most harm at block {worst} ({float(found.value[worst]):.2g} nat, "
        f"{float(same.value[worst]):.0%} of first choices stay), least at block {least} "
        f"({float(found.value[least]):.2g} nat, "
        f"{float(same.value[least]):.0%}){none}",
        value=float(found.value[worst]),
        low=number_or_none(found.low[worst]),
        high=number_or_none(found.high[worst]),
        caveat=f"divergence from the model's own distribution, mean over {int(found.n[worst])} passages; which block "
        "is worst was picked from the data",
        select={"variable": "mean_kl", "ablation": name, "layer": worst}
        if group == PASSAGES
        else {
            "variable": "curve",
            "group": stored(LATER),
            "quantity": "kl",
            "ablation": name,
            "layer": worst,
        },
    )


def _excess(result: xr.Dataset) -> Iterator[Claim]:
    if "excess" not in result:
        return
    p, excess = result.excess_p.values, result.excess.values
    if not np.isfinite(p).any():
        yield Claim(
            text="skipping cannot be compared with a random push",
            caveat="fewer than two passages",
            select={"variable": "excess_p"},
        )
        return
    more, less = np.flatnonzero((p < 0.05) & (excess > 0)), np.flatnonzero((p < 0.05) & (excess < 0))
    apart = np.where(p < 0.05, np.abs(excess), np.nan) if more.size or less.size else np.abs(excess)
    strongest = int(np.nanargmax(apart))
    text = (
        f"skipping does more harm than an equally long random push at {_blocks(more)}, less at {_blocks(less)}"
        if more.size or less.size
        else "skipping a block and an equally long random push are not distinguishable at any block"
    )
    yield Claim(
        text=text,
        value=float(excess[strongest]),
        low=number_or_none(result.excess_low[strongest]),
        high=number_or_none(result.excess_high[strongest]),
        p_adjusted=float(p[strongest]),
        significant=bool(more.size or less.size),
        caveat=f"the number is that of block {strongest}, where they differ most; permutation over passages, "
        "corrected for all blocks; the push turns the state as far as the skip does. Fresh weights are told from it as "
        "well: the size decides, beside the untrained twin's",
        select={"variable": "excess", "layer": strongest},
    )


def _blocks(layers: np.ndarray) -> str:
    if not len(layers):
        return "no block"
    spans = np.split(layers, np.flatnonzero(np.diff(layers) > 1) + 1)
    text = ", ".join(str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)
    return f"block {text}" if len(layers) == 1 else f"blocks {text}"


def _later(result: xr.Dataset) -> Iterator[Claim]:
    """Where earlier tokens' work in a block still matters to later ones."""
    earlier = curve(result, "skip earlier", group=LATER)
    matters = np.flatnonzero(earlier.low.values > float(result.attrs["negligible"]))
    if not np.isfinite(earlier.value.values).any():
        return
    last = int(matters[-1]) if matters.size else 0
    yield Claim(
        text=f"the last block whose work on earlier tokens later tokens use is block {last} of "
        f"{result.sizes['layer']} ({float(earlier.value[last]):.2g} nat when it is skipped for them)"
        if matters.size
        else "no block's work on earlier tokens is used by later ones",
        value=float(earlier.value[last]),
        low=number_or_none(earlier.low[last]),
        high=number_or_none(earlier.high[last]),
        caveat=f"interval above {float(result.attrs['negligible']):g} nat, per block without correction; the last "
        "block can serve no later token",
        select={
            "variable": "curve",
            "group": stored(LATER),
            "quantity": "kl",
            "ablation": "skip earlier",
            "layer": last,
        },
    )
