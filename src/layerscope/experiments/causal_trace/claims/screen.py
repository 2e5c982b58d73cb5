"""What a screen by gradients misses, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import finding
from layerscope.experiments.causal_trace.claims.components import UNKNOWING
from layerscope.experiments.causal_trace.conclude.screen import RECOMPUTED
from layerscope.results.escaping import restored


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """What each kind of screen misses, whether a fix helps, and how far estimates are off."""
    count = int(result.screen_strongest)
    for kind in map(str, result.kind.values):
        for method in map(str, result.screened_by.values):
            missed = finding(result, "screen_missed", unit="share", kind=kind, screened_by=method)
            if missed.known:
                yield _missed(result, kind, method, count)
        error = finding(result, "screen_error", unit="share", kind=kind)
        if error.known:
            yield error.claim(
                f"estimates of the {restored(kind)} that the screen picks are off by {error.estimate} of the exact "
                "effect",
                caveat=f"the {count} picked of each of {error.n[0]} prompts, run exactly",
            )
    for fix in map(str, result.fix.values if "fix" in result.dims else ()):
        yield _fix(result, fix)


def _missed(result: xr.Dataset, kind: str, method: str, count: int) -> Claim:
    cell: dict[str, Any] = {"kind": kind, "screened_by": method}
    missed, best = (
        finding(result, f"screen_{name}", unit="share", **cell) for name in ("missed", "best_missed")
    )
    chance = finding(result, "screen_chance", unit="share", kind=kind)
    order = finding(result, "screen_order", **cell)
    return missed.claim(
        f"screening by {restored(method)} misses {missed.estimate} of the {count} {restored(kind)} of the largest "
        f"exact effect; random picks miss {missed.other(chance.value)}",
        caveat=f"rank correlation with exact effects {order.estimate}; the largest of all is missed in {best.estimate}",
    )


def _fix(result: xr.Dataset, fix: str) -> Claim:
    kind, name = restored(fix).split(": ", 1)
    what = "computing attention patterns anew" if name in RECOMPUTED else name
    gain = finding(result, "screen_gain", p="screen_gain_p", unit="point", units="prompts", fix=fix)
    return gain.claim(
        f"{what} {gain.which('raises', 'lowers')} the share of {kind} that a screen misses by {gain.size}",
        nothing=f"change by {what} of the share of {kind} that a screen misses",
        caveat="against plain gradients on the same prompts",
        untrained=UNKNOWING,
    )
