"""What first_token_attention says: how much the first token gets late in a text, along it, and without BOS."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import finding, head_name, strongest
from layerscope.experiments.first_token_attention.measure import ANOTHER_FIRST, NOTHING_ADDED
from layerscope.results.escaping import restored

_SAID = {NOTHING_ADDED: "an ordinary word first", ANOTHER_FIRST: "a random token first"}
"""Readings as sentences say them: with nothing added, a word of the text stands first."""

_PREFERRED: Untrained = ("effect", "any fixed preference counts, also one that fresh weights have by chance")


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """How large the share is late in the text, by head, along the text, and whether it needs BOS."""
    main = result.attrs["main_reading"]
    if not main:
        return
    yield from _by_layer(result, main)
    yield _by_head(result, main)
    yield _along(result, main)
    for other in map(str, result.other_reading.values):
        change = finding(
            result,
            "overall_change",
            p="overall_change_p",
            unit="point",
            units="passages",
            other_reading=other,
        )
        if change.known:
            yield change.claim(
                f"late in the text, the first token gets {change.size} {change.which('more', 'less')} of the attention "
                f"with {_said(other)} than with {_said(main)}",
                nothing=f"difference in attention to the first token between {_said(other)} and {_said(main)}",
                caveat=f"the same {change.n[0]} passages read both ways",
                untrained=_PREFERRED,
            )


def _by_layer(result: xr.Dataset, main: str) -> Iterator[Claim]:
    most = strongest(result, "late_share", "layer", unit="share", units="passages", reading=main)
    layer, uniform = most.select["layer"], float(result.uniform_late_share.sel(reading=main))
    yield most.claim(
        f"late in the text, layer {layer} gives the first token the most attention of any layer: {most.estimate}",
        caveat=f"{_said(main)}; uniform attention {most.other(uniform)}",
    )
    more = finding(
        result,
        "late_excess",
        p="late_excess_p",
        unit="point",
        units="passages",
        reading=main,
        layer=layer,
        picked=["layer"],
    )
    yield more.claim(
        f"late in the text, layer {layer} gives the first token {more.size} {more.which('more', 'less')} of its "
        "attention than uniform attention does",
        nothing=f"difference between attention to the first token in layer {layer} and uniform attention",
        caveat=_said(main),
        untrained=_PREFERRED,
    )


def _by_head(result: xr.Dataset, main: str) -> Claim:
    best = strongest(
        result, "head_late_share", ("layer", "head"), unit="share", units="passages", reading=main
    )
    name = head_name(best.select["layer"], best.select["head"])
    return best.claim(
        f"late in the text, {name} gives the first token the most attention of any head: {best.estimate}",
        caveat=_said(main),
    )


def _along(result: xr.Dataset, main: str) -> Claim:
    least = strongest(
        result, "overall_along", "stretch", by=np.negative, unit="share", units="passages", reading=main
    )
    position = least.select["stretch"]
    uniform = float(result.uniform_along.sel(stretch=position, reading=main))
    return least.claim(
        f"attention to the first token is least near position {position:.0f}: {least.estimate} on average over all "
        "heads",
        caveat=f"{_said(main)}; uniform attention {least.other(uniform)}",
    )


def _said(reading: str) -> str:
    return _SAID.get(restored(reading), restored(reading))
