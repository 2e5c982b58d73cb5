"""Sentences about what word_formation found, and its curve over depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import as_curve, finding, strongest
from layerscope.results.schema import read_json


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """Recovery by the last piece's state; the null is that of made-up words."""
    last = result.sel(piece="last piece")
    null = last.mean_recovered.sel(group="made up") if "made up" in result.group.values else None
    return as_curve(last.sel(group="words"), "mean_recovered", null=null)


def claims(result: xr.Dataset) -> list[Claim]:
    """Where words are joined, whether made-up ones are alike, by which part, and what twins and probes say."""
    said = [_crossing(result), _gap(result), _stages(result)]
    if "mean_likeness" in result:
        said += [_likeness(result), _named(result)]
    if np.isfinite(float(result.erasure)):
        said.append(_erasure(result))
    return said


def _crossing(result: xr.Dataset) -> Claim:
    at = finding(result, "mean_crossing", unit="1", units="pairs", group="words")
    every = int((result.kind == "words").sum())
    if not at.known:
        return at.claim(
            "", nothing="depth at which the pieces of words are joined", unknown="no pair crosses over"
        )
    used = at.n[0]
    each = "; ".join(
        f"{str(group).removeprefix('words, ')}: {at.other(float(result.mean_crossing.sel(group=group)))}"
        for group in result.group.values
        if str(group).startswith("words,")
    )
    return at.claim(
        f"the pieces of words are joined at depth {at.estimate} on average",
        caveat="where the last piece's state takes over from the earlier pieces' for the next token; "
        f"{used} of {every} pairs of words"
        f"{', the others having predictions too alike or no crossover' * (used < every)}"
        f"{f'; by number of pieces: {each}' * bool(each)}",
    )


def _gap(result: xr.Dataset) -> Claim:
    gap = finding(result, "crossing_gap", unit="layer", units="pairs")
    return gap.claim(
        f"words are joined {gap.size} {gap.which('later', 'earlier')} than made-up ones",
        nothing="difference in the depth at which words and made-up ones are joined",
        unknown="no pair crosses over",
        caveat="made up: the same earlier pieces, and a last piece with which they are no word of the list; pairs "
        "resampled",
    )


def _stages(result: xr.Dataset) -> Claim:
    behind = finding(result, "mlp_behind_attention", unit="layer", units="pairs", group="words")
    attention, mlp = (
        finding(result, "mean_recovered_whole_part", unit="1", group="words", site=site).estimate
        for site in ("attention", "MLP")
    )
    return behind.claim(
        f"at the last piece, what MLPs add matters {behind.size} {behind.which('later', 'earlier')} than what "
        "attention "
        "adds",
        nothing="difference in depth between what attention and MLPs add at the last piece",
        unknown="attention's part and the MLPs' cannot be separated on this model",
        caveat="centroids of single layers' recoveries, pair by pair; attention's part of all layers with the MLPs' as "
        f"it was recovers {attention} of the prediction, the MLPs' with attention's as it was {mlp}",
    )


_WAYS = {
    "merges": "split where the tokenizer's last merge joined them",
    "blank": "without the blank before them",
    "capital": "with a capital",
}


def _likeness(result: xr.Dataset) -> Claim:
    gain = strongest(result, "likeness_gain", "depth", unit="1", units="words")
    way = _WAYS[result.attrs["twin"]]
    return replace(gain, beyond=gain.value > 0).claim(
        f"words {way}: the last piece's state converges to the single token's, most at depth {gain.select['depth']}: "
        f"Δcosine {gain.size} against another word's first piece",
        nothing=f"convergence of words {way} to the single token's state",
        caveat=f"difference of centred cosines above other words'; {result.sizes['word']} words",
    )


def _named(result: xr.Dataset) -> Claim:
    share = strongest(result, "mean_found_twin", "depth", unit="share", units="words", form="split")
    depth, n = share.select["depth"], result.sizes["word"]
    swapped = float(result.mean_found_twin.sel(form="swapped", depth=depth))
    return share.claim(
        f"the single token's state is the closest one for {share.estimate} of {n} split words at depth {depth}",
        caveat=f"chance is {1 / n:.1%}; behind another first piece it is {share.other(swapped)}, by the last piece "
        "alone",
    )


def _erasure(result: xr.Dataset) -> Claim:
    first, last = read_json(result, "erasure_depths")
    more = finding(result, "erasure", unit="1", units="words")
    within, between = (float(result[name]) for name in ("fall_within", "fall_across"))
    return more.claim(
        f"from depth {first} to {last} the piece before fades {more.which('more', 'less')} within words than between "
        f"words, by {more.size}",
        nothing=f"difference in how the piece before fades within and between words, from depth {first} to {last}",
        caveat=f"fall of the probe's probability: {more.other(within)} within, {more.other(between)} between words; "
        f"{read_json(result, 'n_classes')} classes; held-out words",
    )
