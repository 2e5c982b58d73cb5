"""What breaks without a layer, in sentences, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import finding, places_in_words, strongest
from layerscope.evidence.groups import PASSAGES
from layerscope.experiments._ablation_curves import EARLIER, LATER, curve
from layerscope.results.escaping import stored

_DOING = {
    "skip": "skipping layer {}",
    "repeat": "repeating layer {}",
    "swap": "swapping layer {} with the next",
    "mean attention": "mean-ablating the attention of layer {}",
    "mean MLP": "mean-ablating the MLP of layer {}",
}


def claims(result: xr.Dataset) -> list[Claim]:
    """For each ablation the most and least harmful layer; then the null, and what later tokens use."""
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
    kind, only_earlier = name.removesuffix(EARLIER), name.endswith(EARLIER)
    group = LATER if only_earlier else PASSAGES
    found, same = curve(result, name, group=group), curve(result, name, "same_top", group)
    if not np.isfinite(found.value.values).any():
        return
    variable = "curve" if only_earlier else "mean_kl"
    cell: dict[str, Any] = {"group": stored(LATER), "quantity": "kl"} if only_earlier else {}
    worst = strongest(result, variable, "layer", unit="nat", units="passages", ablation=name, **cell)
    least = int(np.nanargmin(found.value.values))
    negligible, stay = float(result.attrs["negligible"]), float(same.value[worst.select["layer"]])
    inert = int((found.high.values < negligible).sum())
    where = (
        " at the earlier tokens changes predictions at the later ones"
        if only_earlier
        else " changes predictions"
    )
    yield worst.claim(
        f"{_DOING[kind].format(worst.select['layer'])}{where} most of all layers: a divergence of {worst.estimate}, "
        f"{stay:.0%} of first choices stay",
        caveat=f"least in layer {least} ({worst.other(float(found.value[least]))}); no difference (below "
        f"{negligible:g} nats) in {inert} of {result.sizes['layer']} layers; mean over {worst.n[0]} passages",
    )


def _excess(result: xr.Dataset) -> Iterator[Claim]:
    if "excess" not in result:
        return
    most = strongest(result, "excess", "layer", by=np.abs, p="excess_p", unit="nat", units="passages")
    sure, excess = result.excess_p.values < 0.05, result.excess.values
    more, less = (places_in_words(np.flatnonzero(sure & side), "layer") for side in (excess > 0, excess < 0))
    layer = most.select["layer"]
    yield most.claim(
        f"skipping layer {layer} changes predictions by {most.size} {most.which('more', 'less')} than an equally long "
        "random push",
        nothing="difference between skipping a layer and an equally long random push",
        caveat=f"significantly more in {more}, less in {less}; sign-flip permutation over passages, corrected for all "
        "layers; the push turns the state as far as the skip does",
        untrained=("effect", "steps of neighbouring layers go together in fresh weights too"),
    )


def _later(result: xr.Dataset) -> Iterator[Claim]:
    """The last layer whose work at earlier tokens still matters to later ones."""
    earlier = curve(result, "skip earlier", group=LATER)
    if not np.isfinite(earlier.value.values).any():
        return
    negligible = float(result.attrs["negligible"])
    matters = np.flatnonzero(earlier.low.values > negligible)
    cell: dict[str, Any] = {"group": stored(LATER), "quantity": "kl", "ablation": "skip earlier"}
    last = int(matters[-1]) if matters.size else 0
    cost = finding(result, "curve", unit="nat", units="passages", **cell, layer=last)
    yield replace(cost, beyond=bool(matters.size)).claim(
        f"the last layer whose work at earlier tokens is used at later ones is layer {last} of "
        f"{result.sizes['layer']}: skipping it there costs {cost.estimate}",
        nothing="use at later tokens of any layer's work at earlier ones",
        caveat=f"interval above {negligible:g} nats, layer by layer without correction; the last layer can serve no "
        "later token",
    )
