"""What rates do over layers, in sentences: trends, bends, the last layer, and attention sinks beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import finding
from layerscope.evidence.wording import null_sentence, p_in_words
from layerscope.experiments.weight_directions.settings import kind_in_words

BY_CHANCE: Untrained = ("null", "directions and tokens of fresh weights are at random")


def depth_claims(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    """For each kind what is significant over layers, and one sentence on all the others."""
    yield from _depth(result, rater)
    yield from _last_layer(result, rater)
    yield from _sinks(result, rater)


def _depth(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    """A line over depth, and what it leaves, where they are significant; and one sentence on all other kinds."""
    known = [str(kind) for kind in result.kind.values if _has_p(result, "slope", kind, rater)]
    plain = []
    for kind in known:
        cell: dict[str, Any] = {"kind": kind, "rater": rater}
        slope = finding(result, "slope", p="slope_p", unit="point", **cell)
        bend = finding(result, "structure", p="structure_p", **cell)
        said = kind_in_words(kind)
        if slope.significant:
            yield slope.claim(
                f"{said}: the rate of coherent directions {slope.which('rises', 'falls')} by {slope.size} from the "
                "first layer to the last",
                nothing=f"trend of the rate over depth ({said})",
                caveat="a weighted straight line; Holm over kinds, directions taken as independent",
                untrained=BY_CHANCE,
            )
        if bend.significant:
            freedom = int(result.structure_freedom.sel(cell))
            yield bend.claim(
                f"{said}: the rate of coherent directions bends over depth, more than a straight line allows",
                nothing=f"bend of the rate over depth ({said})",
                caveat=f"value: χ² on {freedom} degrees of freedom beyond the line; Holm over kinds, directions taken "
                "as independent",
                untrained=BY_CHANCE,
            )
        plain += [] if slope.significant or bend.significant else [kind]
    if plain:
        of = "any kind" if plain == known else ", ".join(map(kind_in_words, plain))
        bends = [kind for kind in plain if _has_p(result, "structure", kind, rater)]
        what = "trend or bend" if bends else "trend"
        yield _none(
            result, ("slope_p", "structure_p"), f"{what} of the rate over depth in {of}", plain, rater
        )


def _last_layer(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    known = [str(kind) for kind in result.kind.values if _has_p(result, "last_block", kind, rater)]
    found = [
        finding(result, "last_block", p="last_block_p", unit="point", kind=k, rater=rater) for k in known
    ]
    for kind, one in zip(known, found, strict=True):
        if one.significant:
            yield one.claim(
                f"{kind_in_words(kind)}: directions of the last layer are coherent {one.size} "
                f"{one.which('more', 'less')} often than those of the others",
                nothing=f"difference in the rate between the last layer and the others ({kind_in_words(kind)})",
                caveat="score test of two proportions, Holm over kinds; interval of that test, of this kind alone",
                untrained=BY_CHANCE,
            )
    if known and not any(one.significant for one in found):
        nothing = "difference in the rate between the last layer and the others in any kind"
        yield _none(result, ("last_block_p",), nothing, known, rater)


def _sinks(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    """Where rates go with attention to the first token, or that none does."""
    if "with_sink" not in result:
        return
    known = [str(kind) for kind in result.kind.values if _has_p(result, "with_sink", kind, rater)]
    found = [finding(result, "with_sink", p="with_sink_p", kind=kind, rater=rater) for kind in known]
    for kind, one in zip(known, found, strict=True):
        if one.significant:
            yield one.claim(
                f"{kind_in_words(kind)}: layers with more coherent directions give the first token "
                f"{one.which('more', 'less')} attention, rank correlation {one.estimate}",
                nothing=f"correlation of the rate with attention to the first token ({kind_in_words(kind)})",
                caveat="over layers; p by orders of stretches of layers, Holm over kinds",
                signed=True,
                untrained=BY_CHANCE,
            )
    if known and not any(one.significant for one in found):
        nothing = "correlation over layers of the rate with attention to the first token in any kind"
        yield _none(result, ("with_sink_p",), nothing, known, rater)


def _has_p(result: xr.Dataset, name: str, kind: object, rater: str) -> bool:
    return bool(result[f"{name}_p"].sel(kind=kind, rater=rater).notnull())


def _none(result: xr.Dataset, p: Sequence[str], nothing: str, kinds: Sequence[str], rater: str) -> Claim:
    """That nothing of a kind was found in several kinds, with the smallest p among them."""
    smallest = float(np.nanmin([result[one].sel(kind=list(kinds), rater=rater).min() for one in p]))
    return Claim(
        text=null_sentence(nothing, f"smallest {p_in_words(smallest)}"),
        significant=False,
        stated=True,
        untrained=BY_CHANCE,
        caveat="p by Holm over kinds",
        select={"variable": p[0], "rater": rater},
    )
