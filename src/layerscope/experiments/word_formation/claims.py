"""Sentences about what word_formation found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import Finding, finding, strongest
from layerscope.results.schema import read_json

_NO_WORDS: Untrained = ("null", "fresh weights know no word from any other pieces")
_ALIKE: Untrained = ("null", "fresh weights add as much in every layer")
_WAYS = {
    "merges": "split where the tokenizer's last merge joined them",
    "blank": "without the blank before them",
    "capital": "with a capital",
}


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """Where words are joined, whether made-up ones are alike, by which part, and what twins and probes say."""
    yield _crossing(result)
    yield _gap(result)
    yield _stages(result)
    if "mean_likeness" in result:
        yield _likeness(result)
        yield _nearest(result)
    if result.erasure.notnull():
        yield _erasure(result)


def _crossing(result: xr.Dataset) -> Claim:
    at = finding(result, "mean_crossing", unit="1", units="pairs", group="words")
    if not at.known:
        return at.claim(
            "",
            nothing="depth at which the pieces of words are joined",
            unknown="no pair crosses over",
            untrained=("not applicable", "a depth, not an effect"),
        )
    used, every = at.n[0], int((result.kind == "words").sum())
    groups = [str(group) for group in result.group.to_numpy() if str(group).startswith("words,")]
    each = "; ".join(
        f"{group.removeprefix('words, ')}: {at.other(finding(result, 'mean_crossing', group=group).value)}"
        for group in groups
    )
    return at.claim(
        f"the pieces of words are joined at depth {at.estimate} on average",
        caveat=f"{used} of {every} pairs of words cross over{f'; {each}' * bool(each)}",
    )


def _gap(result: xr.Dataset) -> Claim:
    both = ("crossing_gap_n_first", "crossing_gap_n_second")
    n = both if both[0] in result else ()
    gap = finding(result, "crossing_gap", unit="layer", units="pairs", n=n)
    return gap.claim(
        f"words are joined {gap.size} {gap.which('later', 'earlier')} than made-up ones",
        nothing="difference in the depth at which words and made-up ones are joined",
        unknown="no pair crosses over",
        caveat="made up: a last piece with which the earlier ones are no word of the list",
        untrained=_NO_WORDS,
    )


def _stages(result: xr.Dataset) -> Claim:
    behind = finding(result, "mlp_behind_attention", unit="layer", units="pairs", group="words")
    attention, mlp = (
        finding(result, "mean_recovered_whole_part", unit="1", group="words", site=site).estimate
        for site in ("attention", "MLP")
    )
    return behind.claim(
        f"at the last piece, what MLPs add matters {behind.size} {behind.which('later', 'earlier')} than what "
        "attention adds",
        nothing="difference in depth between what attention and MLPs add at the last piece",
        unknown="attention's part and the MLPs' cannot be separated on this model",
        caveat=f"of all layers, attention alone recovers {attention} of the prediction and MLPs alone {mlp}",
        untrained=_ALIKE,
    )


def _likeness(result: xr.Dataset) -> Claim:
    gain = strongest(result, "likeness_gain", "depth", unit="1", units="words")
    way = _WAYS[result.attrs["twin"]]
    return replace(gain, beyond=gain.value > 0).claim(
        f"words {way}: the last piece's state converges to the single token's, most at depth {gain.select['depth']}: "
        f"Δcosine {gain.size} against another word's first piece",
        nothing=f"convergence of words {way} to the single token's state",
        caveat="difference of centred cosines above other words'",
        untrained=_NO_WORDS,
    )


def _nearest(result: xr.Dataset) -> Claim:
    share = strongest(result, "mean_found_twin", "depth", unit="share", units="words", form="split")
    depth, n = share.select["depth"], result.sizes["word"]
    swapped = finding(result, "mean_found_twin", unit="share", form="swapped", depth=depth)
    chance = Finding(1 / n, unit="share")
    return share.claim(
        f"the single token's state is the closest one for {share.estimate} of {n} split words at depth {depth}",
        caveat=f"chance is {chance.estimate}; behind another first piece it is {swapped.estimate}",
    )


def _erasure(result: xr.Dataset) -> Claim:
    first, last = read_json(result, "erasure_depths")
    both = ("erasure_n_first", "erasure_n_second")
    more = finding(result, "erasure", unit="1", units="words", n=both if both[0] in result else ())
    within, between = (finding(result, f"fall_{where}") for where in ("within", "across"))
    return more.claim(
        f"from depth {first} to {last} the piece before fades {more.which('more', 'less')} within words than between "
        f"words, by {more.size}",
        nothing=f"difference in how the piece before fades within and between words, from depth {first} to {last}",
        caveat=f"fall of the probe's probability: {more.other(within.value)} within, {more.other(between.value)} "
        "between words",
        untrained=_NO_WORDS,
    )
