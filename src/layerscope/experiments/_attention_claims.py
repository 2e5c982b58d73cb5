"""Attention patterns in sentences, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence.findings import number_or_none
from layerscope.plots.numbers import number
from layerscope.results.schema import read_json

ALL, NO_SINKS, BY_VALUE = "all keys", "without sinks", "by value norm"
MAIN_THRESHOLD = 0.3
_NAMED = {
    "head_previous_token_share": "the previous token",
    "head_repeat_duplicate_share": "the same token of the first reading, in random text read twice",
    "head_repeat_induction_share": "what followed in the first reading, in random text read twice",
    "head_dependency_share": "words related by a dependency",
}


def claims(result: xr.Dataset) -> list[Claim]:
    """The block, distances, content, single heads, syntax."""
    return [
        *_block(result),
        *_distances(result),
        *_content(result),
        *(claim for name in _NAMED if name in result for claim in _head(result, name)),
        *_syntax(result),
    ]


def _claim(result: xr.Dataset, name: str, text: str, caveat: str, **labels: object) -> Claim:
    def cell(end: str) -> float | None:
        return number_or_none(result[f"{name}{end}"].sel(labels)) if f"{name}{end}" in result else None

    return Claim(
        text=text,
        value=cell(""),
        low=cell("_low"),
        high=cell("_high"),
        caveat=caveat,
        select={"variable": name, **labels},
    )


def _block(result: xr.Dataset) -> Iterator[Claim]:
    share = result.resting_share.sel(sink_measure="first token")
    top = int(np.nanargmax(share.values))
    yield _claim(
        result,
        "resting_share",
        f"heads give the first token {float(share[top]):.0%} of their attention in layer {top}, the most of any layer",
        f"uniform attention gives it {float(result.uniform_first_token_share.sel(definition=ALL).max()):.1%}",
        sink_measure="first token",
        layer=top,
    )
    labels = {"sink_measure": "first token", "threshold": MAIN_THRESHOLD}
    end, back = (float(result[name].sel(labels)) for name in ("block_end", "block_return"))
    at = f"a share of {MAIN_THRESHOLD:g} on the first token"
    if np.isnan(end):
        text = f"no layer reaches {at}: there is no end of distributed attention in this model"
    elif end == 0:
        text = (
            f"the first layer has reached {at} already: there is no block of distributed attention before it"
        )
    else:
        text = f"the block of distributed attention ends at layer {end:.1f}, where heads reach {at}"
    yield _claim(result, "block_end", text, _other_thresholds(result, "block_end"), **labels)
    if np.isnan(end):
        return
    text = (
        f"in the last layer attention still gives the first token its {MAIN_THRESHOLD:g}: it does not return"
        if np.isnan(back)
        else f"distributed attention returns at layer {back:.1f} of {result.sizes['layer'] - 1}"
    )
    last = result.sizes["layer"] if np.isnan(back) else back
    between = [
        str(layer)
        for layer, value in enumerate(share.values)
        if end < layer < last and value < MAIN_THRESHOLD
    ]
    if between:
        text += f"; but layer{'s' * (len(between) > 1)} {', '.join(between)} in between lie{'s' * (len(between) == 1)} "
        text += "below it too: attention does not rest in one piece"
    yield _claim(result, "block_return", text, _other_thresholds(result, "block_return"), **labels)


def _other_thresholds(result: xr.Dataset, name: str) -> str:
    values = result[name].sel(sink_measure="first token")
    told = ", ".join(
        f"{float(t):g}: {'none' if np.isnan(v) else f'{v:.1f}'}"
        for t, v in zip(values.threshold.values, values.values, strict=True)
    )
    return f"layers are interpolated; by threshold {told}"


def _distances(result: xr.Dataset) -> Iterator[Claim]:
    values = result.fixed_distance.sel(definition=ALL)
    if not np.isfinite(values).any():
        return
    for which, layer in (
        ("least far", int(np.nanargmin(values.values))),
        ("farthest", int(np.nanargmax(values.values))),
    ):
        others = ", ".join(
            f"{name} {number(float(result.fixed_distance.sel(definition=name, layer=layer)))}"
            for name in result.definition.values[1:]
        )
        if "own_mean_fixed_distance" in result:
            own = float(result.own_mean_fixed_distance.sel(definition=BY_VALUE, layer=layer))
            others += f" ({number(own)} of the heads' mean patterns, which know positions only)"
        yield _claim(
            result,
            "fixed_distance",
            f"attention reaches {which} in layer {layer}: {number(float(values[layer]))} tokens on average",
            f"at fixed queries, mean over heads; uniform attention "
            f"{number(float(result.uniform_fixed_distance.sel(definition=ALL, layer=layer)))}; {others}",
            definition=ALL,
            layer=layer,
        )


def _content(result: xr.Dataset) -> Iterator[Claim]:
    values = result.variability.sel(definition=ALL)
    for which, layer in (
        ("least", int(np.nanargmin(values.values))),
        ("most", int(np.nanargmax(values.values))),
    ):
        yield _claim(
            result,
            "variability",
            f"patterns depend {which} on the words in layer {layer}: they differ from their mean by "
            f"{float(values[layer]):.0%} of the attention",
            f"{values.attrs['long_name']}; 0 would be position alone",
            definition=ALL,
            layer=layer,
        )


def _head(result: xr.Dataset, name: str) -> Iterator[Claim]:
    """The head that gives a kind of key the most; the best of many, so its interval is not corrected."""
    values = result[name].sel(definition=ALL)
    if not np.isfinite(values).any():
        return
    layer, head = np.unravel_index(int(np.nanargmax(values.values)), values.shape)
    null = result[f"uniform_{name.removeprefix('head_')}"].sel(definition=ALL, layer=layer)
    labels = {"definition": ALL, "layer": int(layer), "head": int(head)}
    yield _claim(
        result,
        name,
        f"no head gives a larger share to {_NAMED[name]} than head {head} of layer {layer}: "
        f"{float(values[layer, head]):.0%}",
        f"uniform attention {float(null):.1%}; the best of {int(np.isfinite(values).sum())} heads, "
        "whose interval is its own and not corrected for the choice",
        **labels,
    )


def _syntax(result: xr.Dataset) -> Iterator[Claim]:
    if "dependency_share" not in result:
        return
    values = result.dependency_share.sel(definition="without first token")
    layer = int(np.nanargmax(values.values))
    early, own = (
        float(result[name].sel(definition="without first token", layer=layer))
        for name in ("early_dependency_share", "own_mean_early_dependency_share")
    )
    uniform = float(result.uniform_dependency_share.sel(definition="without first token", layer=layer))
    positions = read_json(result, "settings", {}).get("mean_positions", "first")
    yield _claim(
        result,
        "dependency_share",
        f"attention follows dependencies most in layer {layer}: {float(values[layer]):.0%} "
        "of what is not on the first token",
        f"uniform attention {uniform:.0%}; among the first {positions} tokens {early:.0%}, the heads' mean patterns, "
        f"which know positions only, {own:.0%}",
        definition="without first token",
        layer=layer,
    )
