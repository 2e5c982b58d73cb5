"""What attention_patterns says: where attention rests, how far it reaches, content, single heads, syntax."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import Finding, finding, head_name, places_in_words, settings_of, strongest
from layerscope.experiments.attention_patterns.conclude.block import FIRST_TOKEN, MAIN_THRESHOLD
from layerscope.maths.attention import DEFINITIONS

ALL, NO_FIRST, _, BY_VALUE = DEFINITIONS
_READ_TWICE = "random text read twice"
_NAMED = {
    "head_previous_token_share": ("previous-token head", "the previous token", ""),
    "head_repeat_duplicate_share": ("duplicate-token head", "earlier copies of the token", _READ_TWICE),
    "head_repeat_induction_share": ("induction head", "what followed an earlier copy", _READ_TWICE),
    "head_dependency_share": ("head for syntax", "words related by a dependency", ""),
}
"""What the strongest head for a kind of key is called, what it attends to, and in which texts."""


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """Sentences, each with the cells that it rests on."""
    yield from _block(result)
    if np.isfinite(result.fixed_distance.sel(definition=ALL)).any():
        yield from _distances(result)
    yield from _content(result)
    for name in _NAMED:
        if name in result:
            yield from _head(result, name)
    if "dependency_share" in result:
        yield _syntax(result)


def _block(result: xr.Dataset) -> Iterator[Claim]:
    most = strongest(
        result, "resting_share", "layer", unit="share", units="passages", sink_measure=FIRST_TOKEN
    )
    uniform = result.uniform_first_token_share.sel(definition=ALL, layer=most.select["layer"])
    yield most.claim(
        f"layer {most.select['layer']} gives the first token the most attention of any layer: {most.estimate}",
        caveat=f"uniform attention {most.other(float(uniform))}",
    )
    end, back = (
        finding(result, name, unit="1", units="passages", threshold=MAIN_THRESHOLD, sink_measure=FIRST_TOKEN)
        for name in ("block_end", "block_return")
    )
    yield end.claim(_ends(end), caveat=_other_thresholds(result, "block_end"))
    if end.known:
        yield _return(result, end, back)


def _ends(end: Finding) -> str:
    """Where the early layers of distributed attention end, if they do, and if there are any."""
    at = f"a share of {MAIN_THRESHOLD:g} on the first token"
    if not end.known:
        return f"no layer reaches {at}, so attention stays distributed in this model"
    if not end.value:
        return f"the first layer already reaches {at}, so no layers of distributed attention come before it"
    return f"the early layers of distributed attention end at layer {end.estimate}, where heads reach {at}"


def _return(result: xr.Dataset, end: Finding, back: Finding) -> Claim:
    """Whether late layers distribute their attention again."""
    last = result.sizes["layer"] if not back.known else back.value
    share = result.resting_share.sel(sink_measure=FIRST_TOKEN).values
    between = [
        layer for layer, value in enumerate(share) if end.value < layer < last and value < MAIN_THRESHOLD
    ]
    below = f"; also below that in between: {places_in_words(between, 'layer')}" if between else ""
    says = (
        f"distributed attention returns at layer {back.estimate} of {result.sizes['layer'] - 1}"
        if back.known
        else f"distributed attention does not return: the first token keeps {MAIN_THRESHOLD:g} up to the last layer"
    )
    return back.claim(says, caveat=f"{_other_thresholds(result, 'block_return')}{below}")


def _other_thresholds(result: xr.Dataset, name: str) -> str:
    each = [
        finding(result, name, unit="1", threshold=threshold, sink_measure=FIRST_TOKEN)
        for threshold in result.threshold.values.tolist()
    ]
    said = [f"{one.select['threshold']:g}: {one.estimate if one.known else 'none'}" for one in each]
    return f"by threshold {', '.join(said)}"


def _distances(result: xr.Dataset) -> Iterator[Claim]:
    for which, by in (("least", np.negative), ("most", np.asarray)):
        reach = strongest(
            result, "fixed_distance", "layer", by=by, unit="token", units="passages", definition=ALL
        )
        layer = reach.select["layer"]
        others = ", ".join(
            f"{name} {reach.other(float(result.fixed_distance.sel(definition=name, layer=layer)))}"
            for name in (NO_FIRST, BY_VALUE)
        )
        uniform = float(result.uniform_fixed_distance.sel(definition=ALL, layer=layer))
        yield reach.claim(
            f"attention reaches back {which} in layer {layer}: {reach.estimate} on average",
            caveat=f"uniform attention {reach.other(uniform)}; {others}",
        )


def _content(result: xr.Dataset) -> Iterator[Claim]:
    for which, by in (("least", np.negative), ("most", np.asarray)):
        differ = strongest(
            result, "variability", "layer", by=by, unit="share", units="passages", definition=ALL
        )
        yield differ.claim(
            f"patterns depend {which} on the words in layer {differ.select['layer']}: they differ from their mean by "
            f"{differ.estimate} of the attention",
            caveat="0% would be position alone",
        )


def _head(result: xr.Dataset, name: str) -> Iterator[Claim]:
    """The head that gives a kind of key the most."""
    most = strongest(result, name, ("layer", "head"), unit="share", units="passages", definition=ALL)
    if not most.known:
        return
    layer, head = most.select["layer"], most.select["head"]
    uniform = most.other(
        float(result[f"uniform_{name.removeprefix('head_')}"].sel(definition=ALL, layer=layer))
    )
    kind, keys, where = _NAMED[name]
    yield most.claim(
        f"{head_name(layer, head)} is the strongest {kind}: {most.estimate} of its attention on {keys}"
        f"{f', in {where}' * bool(where)}",
        caveat=f"uniform attention {uniform}",
    )


def _syntax(result: xr.Dataset) -> Claim:
    most = strongest(
        result, "dependency_share", "layer", unit="share", units="documents", definition=NO_FIRST
    )
    early, own, uniform = (
        most.other(float(result[name].sel(definition=NO_FIRST, layer=most.select["layer"])))
        for name in (
            "early_dependency_share",
            "own_mean_early_dependency_share",
            "uniform_dependency_share",
        )
    )
    positions = settings_of(result).get("mean_positions", "first")
    return most.claim(
        f"attention follows dependencies most in layer {most.select['layer']}: {most.estimate} of what is not on the "
        "first token",
        caveat=f"uniform attention {uniform}; among the first {positions} tokens {early}, by position alone {own}",
    )
