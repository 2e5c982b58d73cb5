"""What attention_knockout says in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import Finding, finding, places_in_words, rest_of, strongest, wording
from layerscope.evidence.distances import MIXING, context_of_range
from layerscope.experiments._knockout_items import SUBJECT
from layerscope.experiments._knockout_maps import LEVEL
from layerscope.experiments._knockout_summary import ALL
from layerscope.plots.numbers import number

_REMOVED = {
    "renormalise": "spread over the other keys",
    "first": "sent to the first token",
    "mean": "kept on mean values",
}
"""Where the removed attention goes, by the name of the setting."""


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """Sentences, each with the cells that it rests on."""
    if "effect" in result:
        yield _index(result)
        yield from _beyond_control(result)
        yield from _costliest(result)
        for edges in result.edges.values[: int(result.attrs["bands"])]:
            yield from _against_random(result, "", str(edges))
        yield from _agreement(result)
    if "prompt_effect" in result:
        yield _subject(result)
        yield from _categories(result)
        yield from _against_random(result, "prompt_", SUBJECT)


def _first(result: xr.Dataset) -> dict[str, Any]:
    """Where the removed attention goes, and the window, in what claims are about."""
    return {"fate": str(result.fate.values[0]), "window": int(result.window.values[0])}


def _round(result: xr.Dataset, layer: int) -> str:
    """The layers that are cut together: "in layer 5", "in 9 layers round layer 5"."""
    width = int(result.window.values[0])
    return f"in layer {layer}" if width == 1 else f"in {width} layers round layer {layer}"


def _ranges(result: xr.Dataset) -> tuple[str, str]:
    """The farthest and the nearest range in words."""
    bands = [str(name) for name in result.edges.values[: int(result.attrs["bands"])]]
    return context_of_range(bands[-1]), context_of_range(bands[0])


def _index(result: xr.Dataset) -> Claim:
    cell = _first(result)
    gap = finding(result, "far_less_near", unit="layer", units="passages", **cell)
    far, near = _ranges(result)
    farthest = str(result.edges.values[int(result.attrs["bands"]) - 1])
    seen = bool(np.isfinite(result.effect.sel(edges=farthest, **cell)).any())
    others = [
        f"with the removed attention {_REMOVED[str(fate)]} "
        f"{gap.other(float(result.far_less_near.sel(fate=fate, window=cell['window'])))}"
        for fate in result.fate.values[1:]
    ]
    beside = [
        f"centroid of depth of the divergence, the removed attention {_REMOVED[cell['fate']]}",
        *others,
        f"random keys {gap.other(float(result.far_less_near_of_control.values[0]))}",
        f"the attention that was cut {gap.other(float(result.far_less_near_of_mass.values[0]))}",
    ]
    return gap.claim(
        f"{far} is needed {gap.size} {gap.which('later', 'earlier')} than {near}",
        nothing=f"difference in depth between needing {far} and {near}",
        unknown="cutting one of them changes no prediction" if seen else f"no layer can see {far}",
        caveat="; ".join(beside),
        untrained=("effect", MIXING),
    )


def _beyond_control(result: xr.Dataset) -> Iterator[Claim]:
    """Whether the index says more than where attention lies."""
    window = int(result.window.values[0])
    more = finding(result, "far_less_near_beyond_control", unit="layer", units="passages", window=window)
    if not more.known:
        return
    far, near = _ranges(result)
    control = more.other(float(result.far_less_near_of_control.sel(window=window)))
    yield more.claim(
        f"{far} is needed later than {near} by {more.size} {more.which('more', 'less')} than with random keys cut "
        f"instead ({control})",
        nothing=f"difference in depth between needing {far} and {near} beyond that of random keys ({control})",
        caveat=f"random keys: {result.attrs['control']}; what they show too comes from how much attention lies where; "
        "compared on the targets and layers that have such keys",
    )


def _costliest(result: xr.Dataset) -> Iterator[Claim]:
    """The range and layer that cost most, by the lost log-probability of the actual next token."""
    bands = result.isel(edges=slice(int(result.attrs["bands"])))
    cell = _first(result)
    if not np.isfinite(bands.lost.sel(cell)).any():
        return
    most = strongest(bands, "lost", ("edges", "layer"), p="lost_p", unit="nat", units="passages", **cell)
    what = context_of_range(str(most.select["edges"]))
    yield most.claim(
        f"cutting {what} {_round(result, most.select['layer'])} {most.which('costs', 'adds')} most: {most.size} of the "
        "next token's log-probability",
        nothing="cost of cutting any range, in the next token's log-probability",
        caveat=_of_the_cut(result, "", most, "cuts of one range"),
    )


def _subject(result: xr.Dataset) -> Claim:
    """The layer at which the last token most needs the subject."""
    cell = _first(result) | {"prompt_edges": SUBJECT}
    most = strongest(result, "prompt_lost", "layer", p="prompt_lost_p", unit="nat", units="prompts", **cell)
    nothing = "cost of cutting the last token from the subject, in the answer's log-probability"
    if not most.known:
        return most.claim("", nothing=nothing, unknown="no layer lets the last token see the subject")
    return most.claim(
        f"cutting the last token from the subject {_round(result, most.select['layer'])} "
        f"{most.which('costs', 'adds')} most: {most.size} of the answer's log-probability",
        nothing=nothing,
        caveat=_of_the_cut(result, "prompt_", most, "layers"),
    )


def _of_the_cut(result: xr.Dataset, prefix: str, most: Finding, of: str) -> str:
    cell = {dim: label for dim, label in most.select.items() if dim not in ("variable", "fate")}
    removed = float(result[f"{prefix}removed"].sel(cell))
    return (
        f"{removed:.0%} of the layer's attention was cut there; significant in {most.clear} of {most.family} {of}; "
        f"sign-flip permutation over {most.units}, corrected for the whole map"
    )


def _against_random(result: xr.Dataset, prefix: str, edges: str) -> Iterator[Claim]:
    """Where a set is missed more than keys drawn at random."""
    name = f"{prefix}relative_excess"
    row = {f"{prefix}edges": edges, "window": int(result.window.values[0])}
    excess, p = result[name].sel(row).values, result[f"{name}_p"].sel(row).values
    if not np.isfinite(p).any():
        return
    most = strongest(
        result,
        name,
        "layer",
        by=np.abs,
        p=f"{name}_p",
        unit="1",
        units="prompts" if prefix else "passages",
        **row,
    )
    layers = result.layer.values
    more, less = (places_in_words(layers[(p < LEVEL) & side], "layer") for side in (excess > 0, excess < 0))
    held, drawn = (
        float(result[f"{prefix}{kind}removed"].sel(row | {"layer": most.select["layer"]}))
        for kind in ("compared_", "control_")
    )
    what = f"the last token from {edges}" if prefix else context_of_range(edges)
    yield most.claim(
        f"cutting {what} {_round(result, most.select['layer'])} changes predictions "
        f"{most.which('more', 'less')} than cutting random keys: relative excess {most.size}",
        nothing=f"difference between cutting {what} and random keys, in any layer",
        caveat=f"difference of both effects over their sum; significantly more in {more}, less in {less}; the cut "
        f"holds {held:.1%} of attention there and the random keys {drawn:.1%}; sign-flip permutation over "
        f"{most.units}, corrected for the whole map",
        untrained=("effect", MIXING),
    )


def _agreement(result: xr.Dataset) -> Iterator[Claim]:
    """How often what is significant does not depend on where the removed attention goes."""
    window = int(result.window.values[0])
    if result.sizes["fate"] < 2:
        return
    here = result.isel(edges=slice(int(result.attrs["bands"]))).sel(window=window)
    sure = (here.lost_p.isel(fate=0) < LEVEL) & (here.fates_here > 1)
    all_of_them = sure & (here.fates_told == here.fates_here)
    shares = here.agreement.where(sure).values
    if not np.isfinite(shares).any():  # nothing significant, or only cells whose effects have no ratio
        return
    yield Claim(
        text=wording.sentence(
            f"in {int(all_of_them.sum())} of {int(sure.sum())} significant cells, the loss is significant wherever the "
            "removed attention goes; the median ratio of the smallest to the largest effect is "
            f"{number(float(np.nanmedian(shares)))}"
        ),
        caveat="what differs between these depends on where the removed attention goes",
        select={"variable": "fates_told", "window": window},
    )


def _categories(result: xr.Dataset) -> Iterator[Claim]:
    """About which layer each category needs its subject, and whether categories differ."""
    for name in map(str, result.category.values):
        place = finding(result, "subject_centroid", unit="1", units="prompts", category=name)
        if name != ALL and place.known:
            yield place.claim(
                f"the subject is needed about layer {place.estimate} for {name}",
                caveat="centroid of depth of the divergence, mean over prompts",
            )
    p, what = result.p_adjusted.values, "difference in the layer about which the subject is needed"
    caveat = "permutation of prompts between categories, corrected for all pairs"
    for name in map(str, result.contrast.values[p < LEVEL]):
        gap = finding(
            result,
            "difference",
            p="p_adjusted",
            unit="layer",
            units="prompts",
            n=("contrast_n",),
            contrast=name,
        )
        first, _, second = name.partition(" − ")
        yield gap.claim(
            f"the subject is needed {gap.size} {gap.which('later', 'earlier')} for {first} than for {second}",
            nothing=what,
            caveat=caveat,
        )
    if (p >= LEVEL).any():
        yield rest_of(
            result, "p_adjusted", "p_adjusted", nothing=what, of="pairs of categories", caveat=caveat
        )
