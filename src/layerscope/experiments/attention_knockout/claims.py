"""What attention_knockout says in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import Finding, claims_of_pairs, finding, on_either_side, strongest
from layerscope.evidence.distances import MIXING, context_of_range
from layerscope.evidence.wording import ALPHA
from layerscope.experiments.attention_knockout.conclude import ALL
from layerscope.experiments.attention_knockout.items import SUBJECT
from layerscope.experiments.attention_knockout.settings import PLACED
from layerscope.results.escaping import restored

_UNKNOWING: Untrained = ("null", "fresh weights predict no actual next token, whatever they read")
_OTHER_WORDS: Untrained = ("effect", "categories differ in their words and in where their subjects stand")


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """Sentences, each with the cells that it rests on."""
    if "effect" in result:
        yield _index(result)
        yield from _beyond_control(result)
        yield from _costliest(result)
        for edges in _bands(result):
            yield from _against_random(result, "", edges)
        yield from _agreement(result)
    if "prompt_effect" in result:
        yield _subject(result)
        yield from _categories(result)
        yield from _against_random(result, "prompt_", SUBJECT)


def _bands(result: xr.Dataset) -> list[str]:
    """Ranges of distance, from the nearest to the farthest."""
    return [str(name) for name in result.edges.to_numpy()[: int(result.attrs["bands"])]]


def _first(result: xr.Dataset) -> dict[str, Any]:
    """Where the removed attention goes, and the window, in what claims are about."""
    return {"fate": str(result.fate[0].item()), "window": int(result.window[0])}


def _round(result: xr.Dataset, layer: int) -> str:
    """The layers that are cut together: "in layer 5", "in 9 layers round layer 5"."""
    width = int(result.window[0])
    return f"in layer {layer}" if width == 1 else f"in {width} layers round layer {layer}"


def _ranges(result: xr.Dataset) -> tuple[str, str]:
    """The farthest and the nearest range in words."""
    bands = _bands(result)
    return context_of_range(bands[-1]), context_of_range(bands[0])


def _index(result: xr.Dataset) -> Claim:
    cell, (far, near) = _first(result), _ranges(result)
    gap = finding(result, "far_less_near", unit="layer", units="passages", **cell)
    seen = bool(result.effect.sel(edges=_bands(result)[-1], **cell).notnull().any())
    window: dict[str, Any] = {"window": cell["window"]}
    others = [
        finding(result, "far_less_near", fate=fate, **window) for fate in result.fate.to_numpy()[1:].tolist()
    ]
    keys = finding(result, "far_less_near_of_control", **window)
    compared = [(f"with attention {PLACED[one.select['fate']]}", one) for one in others] + [
        ("random keys", keys)
    ]
    said = "; ".join(f"{what} {gap.other(one.value)}" for what, one in compared if one.known)
    return gap.claim(
        f"{far} is needed {gap.size} {gap.which('later', 'earlier')} than {near}",
        nothing=f"difference in depth between needing {far} and {near}",
        unknown="cutting one of them changes no prediction" if seen else f"no layer can see {far}",
        caveat=said,
        untrained=("effect", MIXING),
    )


def _beyond_control(result: xr.Dataset) -> Iterator[Claim]:
    """Whether the index says more than where attention lies."""
    window: dict[str, Any] = {"window": int(result.window[0])}
    more = finding(result, "far_less_near_beyond_control", unit="layer", units="passages", **window)
    if not more.known:
        return
    far, near = _ranges(result)
    keys = finding(result, "far_less_near_of_control", **window)
    yield more.claim(
        f"beyond what random keys show, {far} is needed {more.size} {more.which('later', 'earlier')} than {near}",
        nothing=f"difference in depth between needing {far} and {near} beyond that of random keys",
        caveat=f"random keys alone {more.other(keys.value)}",
        untrained=("effect", MIXING),
    )


def _costliest(result: xr.Dataset) -> Iterator[Claim]:
    """The range and layer that cost most, by the lost log-probability of the actual next token."""
    bands, cell = result.isel(edges=slice(int(result.attrs["bands"]))), _first(result)
    if not bands.lost.sel(cell).notnull().any():
        return
    most = strongest(
        bands, "lost", ("edges", "layer"), by=np.abs, p="lost_p", unit="nat", units="passages", **cell
    )
    what = context_of_range(str(most.select["edges"]))
    yield most.claim(
        f"cutting {what} {most.which('costs', 'adds')} most {_round(result, most.select['layer'])}: {most.size} of "
        "the next token's log-probability",
        nothing="cost of cutting any range, in the next token's log-probability",
        caveat=_of_the_cut(result, "", most, "cuts of one range"),
        untrained=_UNKNOWING,
    )


def _subject(result: xr.Dataset) -> Claim:
    """The layer at which the last token most needs the subject."""
    cell = _first(result) | {"prompt_edges": SUBJECT}
    most = strongest(
        result, "prompt_lost", "layer", by=np.abs, p="prompt_lost_p", unit="nat", units="prompts", **cell
    )
    nothing = "cost of cutting the last token from the subject, in the answer's log-probability"
    if not most.known:
        unseen = "no layer lets the last token see the subject"
        return most.claim("", nothing=nothing, unknown=unseen, untrained=_UNKNOWING)
    return most.claim(
        f"cutting the last token from the subject {most.which('costs', 'adds')} most "
        f"{_round(result, most.select['layer'])}: {most.size} of the answer's log-probability",
        nothing=nothing,
        caveat=_of_the_cut(result, "prompt_", most, "layers"),
        untrained=_UNKNOWING,
    )


def _of_the_cut(result: xr.Dataset, prefix: str, most: Finding, of: str) -> str:
    cell = {dim: label for dim, label in most.select.items() if dim not in ("variable", "fate")}
    removed = finding(result, f"{prefix}removed", unit="share", **cell)
    found = f"significant in {most.clear} of {most.family} {of}"
    return f"{removed.estimate} of the layer's attention was cut there; {found}"


def _against_random(result: xr.Dataset, prefix: str, edges: str) -> Iterator[Claim]:
    """Where a set is needed more than random keys."""
    name, row = f"{prefix}relative_excess", {f"{prefix}edges": edges, "window": int(result.window[0])}
    units, p = "prompts" if prefix else "passages", result[f"{prefix}relative_excess_p"].sel(row)
    if not p.notnull().any():
        return
    most = strongest(result, name, "layer", by=np.abs, p=f"{name}_p", unit="1", units=units, **row)
    sides = on_either_side(result.sel(row), name, "layer", "more", "less", p=f"{name}_p")
    here: dict[str, Any] = row | {"layer": most.select["layer"]}
    held, drawn = (
        finding(result, f"{prefix}{kind}removed", unit="share", **here).estimate
        for kind in ("compared_", "control_")
    )
    what = f"the last token from {edges}" if prefix else context_of_range(edges)
    yield most.claim(
        f"cutting {what} {_round(result, most.select['layer'])} changes predictions "
        f"{most.which('more', 'less')} than cutting random keys: relative excess {most.estimate}",
        nothing=f"difference between cutting {what} and random keys, in any layer",
        caveat=f"significantly {sides}; the cut holds {held} of attention there, the random keys {drawn}",
        untrained=("effect", MIXING),
        signed=True,
    )


def _agreement(result: xr.Dataset) -> Iterator[Claim]:
    """How often what is significant does not depend on where the removed attention goes."""
    window = int(result.window[0])
    if result.sizes["fate"] < 2:
        return
    here = result.isel(edges=slice(int(result.attrs["bands"]))).sel(window=window)
    sure = (here.lost_p.isel(fate=0) < ALPHA) & (here.fates_here > 1)
    everywhere = sure & (here.fates_told == here.fates_here)
    ratios = here.agreement.where(sure)
    if not ratios.notnull().any():  # nothing significant, or only cells whose effects have no ratio
        return
    ratio = Finding(float(ratios.median()), select={"variable": "agreement", "window": window})
    yield ratio.claim(
        f"the loss is significant wherever the removed attention goes in {int(everywhere.sum())} of {int(sure.sum())} "
        f"significant cells; the median ratio of the smallest to the largest effect is {ratio.estimate}",
        caveat="a ratio far below 1 says that the effect depends on where the removed attention goes",
    )


def _categories(result: xr.Dataset) -> Iterator[Claim]:
    """About which layer each category needs its subject, and whether categories differ."""
    for name in map(str, result.category.to_numpy()):
        place = finding(result, "subject_centroid", unit="1", units="prompts", category=name)
        if name != ALL and place.known:
            yield place.claim(
                f"the subject is needed about layer {place.estimate} for {restored(name)}",
                caveat="centroid of depth of the divergence, mean over prompts",
            )
    yield from claims_of_pairs(
        result,
        says=lambda gap, first, second: (
            f"the subject is needed {gap.size} {gap.which('later', 'earlier')} for {first} than for {second}"
        ),
        nothing="difference in the layer about which the subject is needed",
        untrained=_OTHER_WORDS,
    )
