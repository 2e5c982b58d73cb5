"""What final_token_attention says: where the last token looks, heads that differ by category, the peak and a trace."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import finding, head_name, largest_first, strongest
from layerscope.experiments.final_token_attention.conclude import CORRUPTED, FIRST, SAID
from layerscope.experiments.final_token_attention.measure import ATTENTION
from layerscope.results.escaping import restored

_TO = f"attention to {SAID[CORRUPTED]}"
_PLACE: Untrained = ("not applicable", "a layer, not an effect")


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """Sentences, each with the cells that it rests on."""
    yield _first(result)
    for category in largest_first(result.mean_spike):
        yield _peak(result, category)
    if "contrast" in result.head_p_adjusted.dims:
        yield from sorted(_heads(result), key=lambda claim: (not claim.significant, -abs(claim.value or 0.0)))
    if int(result.transition_less_spike_n):
        yield _trace(result)


def _first(result: xr.Dataset) -> Claim:
    most = strongest(
        result, "overall_attention", "layer", unit="share", units="prompts", weighting=ATTENTION, row=FIRST
    )
    if not most.known:
        return most.claim(
            "",
            nothing=f"last token's attention to {SAID[FIRST]}",
            unknown="no prompt is left to average over",
            untrained=_PLACE,
        )
    uniform = most.other(float(result.uniform_overall.sel(row=FIRST)))
    return most.claim(
        f"the last token gives {SAID[FIRST]} the most attention in layer {most.select['layer']}: {most.estimate}",
        caveat=f"mean over heads and {most.n[0]} prompts; uniform attention {uniform}",
    )


def _peak(result: xr.Dataset, category: str) -> Claim:
    layer, of = (
        finding(result, "mean_spike", unit="1", units="prompts", category=category),
        restored(category),
    )
    if not layer.known:
        nothing = f"layer in which {_TO} peaks, for {of}"
        return layer.claim("", nothing=nothing, unknown="no prompt has such a peak", untrained=_PLACE)
    return layer.claim(
        f"the last token's {_TO} peaks in layer {layer.estimate} for {of}",
        caveat=f"mean over {layer.n[0]} prompts",
    )


def _heads(result: xr.Dataset) -> Iterator[Claim]:
    """For each pair of categories, the head in which they differ most."""
    for contrast in map(str, result.head_p_adjusted.contrast.values):
        most = strongest(
            result,
            "head_difference",
            ("layer", "head"),
            by=np.abs,
            p="head_p_adjusted",
            unit="1",
            units="prompts",
            n=("head_difference_n_first", "head_difference_n_second"),
            contrast=contrast,
            kept_row=CORRUPTED,
        )
        if not most.known:
            continue
        first, _, second = restored(contrast).partition(" − ")
        head = head_name(most.select["layer"], most.select["head"])
        yield most.claim(
            f"{head} gives {SAID[CORRUPTED]} {most.which('more', 'less')} attention for {first} than for {second}, by "
            f"{most.size} in the natural logarithm of its share",
            nothing=f"difference between {first} and {second} in any head's {_TO}",
            caveat=f"significant in {most.clear} of {most.family} heads; prompts are not matched unless the set says "
            "so",
            untrained=(
                "effect",
                "categories differ in their words, which heads of fresh weights prefer by chance",
            ),
        )


def _trace(result: xr.Dataset) -> Claim:
    gap = finding(result, "transition_less_spike", unit="layer", units="prompts")
    rank = finding(result, "spike_transition_correlation", unit="1", units="prompts")
    within = finding(result, "prompts_crossing_in_the_spike", unit="share", units="prompts")
    correlation = f"{rank.estimate} ({rank.interval})" if rank.known else "unknown"
    return gap.claim(
        f"crossover comes {gap.size} {gap.which('later', 'earlier')} than the middle of the layer in which {_TO} peaks",
        nothing=f"difference in depth between crossover and the peak of {_TO}",
        caveat=f"{within.estimate} of {gap.n[0]} prompts cross over within that layer; rank correlation {correlation}",
        untrained=("not applicable", "an untrained model has no answer to lose"),
    )
