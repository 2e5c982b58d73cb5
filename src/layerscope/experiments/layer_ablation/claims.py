"""What breaks without a layer, in sentences: the most harmful layer, the null, and what later tokens use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import finding, on_either_side, strongest
from layerscope.evidence.groups import PASSAGES
from layerscope.experiments.layer_ablation.conclude import LATER, curve
from layerscope.experiments.layer_ablation.settings import EARLIER
from layerscope.results.escaping import stored

_DOING = {
    "skip": "skipping layer {}",
    "repeat": "repeating layer {}",
    "swap": "swapping layer {} with the next",
    "mean attention": "mean-ablating the attention of layer {}",
    "mean MLP": "mean-ablating the MLP of layer {}",
}
_STEPS: Untrained = ("effect", "steps of neighbouring tokens go together in fresh weights too")


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """For each ablation the most and least harmful layer; then what later tokens use, and the null."""
    for name in map(str, result.ablation.values):
        if name not in ("random push", f"skip{EARLIER}"):
            yield from _most_harmful(result, name)
    if "later_use" in result and np.isfinite(result.later_use).any():
        yield _last_that_serves(result)
    if "excess" in result:
        yield _against_the_push(result)


def _most_harmful(result: xr.Dataset, name: str) -> Iterator[Claim]:
    kind, only_earlier = name.removesuffix(EARLIER), name.endswith(EARLIER)
    group = LATER if only_earlier else PASSAGES
    cell: dict[str, Any] = {"group": stored(group), "ablation": name}
    if only_earlier:
        variable, labels = "curve", cell | {"quantity": "kl"}
    else:
        variable, labels = "mean_kl", {"ablation": name}
    how: dict[str, Any] = {"unit": "nat", "units": "passages", **labels}
    worst, least = (strongest(result, variable, "layer", by=by, **how) for by in (np.asarray, np.negative))
    if not worst.known:
        return
    layer, negligible = worst.select["layer"], float(result.attrs["negligible"])
    stay = finding(result, "curve", unit="share", quantity="same_top", layer=layer, **cell)
    inert = int((curve(result, name, group=group).high.values < negligible).sum())
    where = (
        " at the earlier tokens changes predictions at the later ones"
        if only_earlier
        else " changes predictions"
    )
    yield worst.claim(
        f"{_DOING[kind].format(layer)}{where} most of all layers: {stay.estimate} of first choices stay, a divergence "
        f"of {worst.estimate}",
        caveat=f"least in layer {least.select['layer']} ({least.estimate})"
        + f"; below {negligible:g} nats in {inert} of {result.sizes['layer']} layers" * bool(inert),
        untrained=("effect", "layers of fresh weights change predictions too"),
    )


def _against_the_push(result: xr.Dataset) -> Claim:
    most = strongest(result, "excess", "layer", by=np.abs, p="excess_p", unit="nat", units="passages")
    sides = on_either_side(result, "excess", "layer", "more", "less", p="excess_p")
    layer = most.select["layer"]
    return most.claim(
        f"skipping layer {layer} changes predictions by {most.size} {most.which('more', 'less')} than an equally long "
        "random push",
        nothing="difference between skipping a layer and an equally long random push",
        caveat=f"significantly {sides}",
        untrained=_STEPS,
    )


def _last_that_serves(result: xr.Dataset) -> Claim:
    """The last layer whose work at earlier tokens still matters to later ones, by intervals for all layers at once."""
    negligible = float(result.attrs["negligible"])
    matters = result.get("later_use_joint_low", result.later_use_low).values > negligible
    last = strongest(
        result, "later_use", "layer", by=lambda _: np.where(matters, 1, -1) * np.arange(1, len(matters) + 1)
    )
    return replace(last, null=negligible, beyond=bool(matters.any())).claim(
        f"the last layer whose work at earlier tokens is used at later ones is layer {last.select['layer']} of "
        f"{result.sizes['layer']}: skipping it there costs {last.estimate}",
        nothing="use at later tokens of any layer's work at earlier ones",
        caveat=f"the last whose interval lies above {negligible:g} nats",
        untrained=("effect", "attention of fresh weights reads earlier tokens too"),
    )
