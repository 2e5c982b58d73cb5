"""Quantities of context_reading in sentences: is far context read later, and who brings it?"""

from __future__ import annotations

from collections.abc import Iterator

import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import finding
from layerscope.evidence.distances import MIXING, context_of_range
from layerscope.experiments.context_reading.measure import PARTS, SAID


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """The index, and who brings what lies far back."""
    yield _index(result)
    for cut in result.cut_at.values:
        yield _brought(result, int(cut))


def _index(result: xr.Dataset) -> Claim:
    ranges = [str(name) for name in result["range"].values]
    far, near = context_of_range(ranges[-1]), context_of_range(ranges[0])
    gap, other = finding(result, "far_less_near"), finding(result, "far_less_near_by_length")
    return gap.claim(
        f"{far} is read directly {gap.size} {gap.which('later', 'earlier')} than {near}",
        nothing=f"difference in depth between reading {far} and {near}",
        unknown="attention adds nothing from one of these ranges",
        caveat=f"weighted by length {other.estimate}",
        untrained=("effect", MIXING),
    )


def _brought(result: xr.Dataset, cut: int) -> Claim:
    last = int(result.layer.values[-1])
    direct, *others = (
        finding(result, "brought", unit="share", cut_at=cut, part=part, layer=last) for part in PARTS
    )
    rest = ", ".join(f"{SAID[part]} {one.estimate}" for part, one in zip(PARTS[1:], others, strict=True))
    return direct.claim(
        f"{direct.estimate} of what context ≥ {cut} tokens back changes in the final state is read directly",
        caveat=rest,
    )
