"""The state's path in sentences: growth, the first token, large entries, what layers write, phases, categories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import finding, on_either_side, places_in_words, strongest
from layerscope.evidence.groups import main_group
from layerscope.experiments.hidden_states.conclude.contrasts import COMPARED
from layerscope.experiments.hidden_states.conclude.phases import drift_beaten
from layerscope.experiments.hidden_states.measure.path import RATIOS, long_name
from layerscope.results.escaping import restored

_ADDING: Untrained = ("effect", "random layers add vectors to the state too")

_PHASES: Untrained = ("null", "fresh layers are drawn alike, and a growing state drifts smoothly")


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """Sentences, each with the cells that it rests on; what an older result does not hold is not said."""
    yield _growth(result)
    if "first_token_length" in result:
        yield _first_token(result)
    if "largest_entries" in result:
        yield _largest_entries(result)
        yield from _writing(result)
    if "phase_better" in result:
        yield from _phases(result)
    if "contrast_p" in result:
        for place in range(result.sizes["contrast"]):
            yield _contrast(result.isel(contrast=slice(place, place + 1)))


def _growth(result: xr.Dataset) -> Claim:
    group = main_group(result)
    rate = finding(result, "growth_rate", unit="share", units=group)
    where = f"from depth {result.attrs['growth_first']} to {result.attrs['growth_last']}"
    return rate.claim(
        f"{where}, the residual stream {rate.which('grows', 'shrinks')} by {rate.size} per layer",
        nothing=f"growth of the residual stream {where}",
        unknown=f"all {group} were left out; the reasons are listed",
        caveat="cosines between neighbouring depths rise with growth alone",
        untrained=_ADDING,
    )


def _first_token(result: xr.Dataset) -> Claim:
    ratio = strongest(result, "first_token_length", "depth", by=_away_from_1, null=1.0)
    return ratio.claim(
        f"at depth {ratio.select['depth']}, the first token's state is {ratio.which('longer', 'shorter')} than later "
        f"ones': {ratio.estimate} times their length",
        nothing="difference in length between the first token's state and later ones'",
        caveat="a large ratio marks an attention sink",
        untrained=("effect", "one token's embedding has a length of its own"),
    )


def _away_from_1(ratios: np.ndarray) -> np.ndarray:
    return np.abs(np.log(ratios))


def _largest_entries(result: xr.Dataset) -> Claim:
    expected = float(result.massive_share_expected)
    share = strongest(result, "largest_entries", "depth", unit="share", null=expected)
    count = result.sizes["rank"]
    return share.claim(
        f"at depth {share.select['depth']}, the {count} largest entries of a state hold {share.estimate} of its "
        f"squared norm, {share.which('more', 'less')} than {share.other(expected)} by chance",
        nothing=f"excess of the {count} largest entries of a state over chance",
        caveat="chance is a state with normal entries",
        untrained=("effect", "fresh states are only nearly normal"),
    )


def _writing(result: xr.Dataset) -> Iterator[Claim]:
    along = strongest(result, "step_along_state", "layer", by=np.abs)
    if not along.known:
        return
    yield along.claim(
        f"layer {along.select['layer']}'s step goes {along.which('along', 'against')} the state before it: cosine "
        f"{along.estimate}",
        nothing="direction of any layer's step along the state before it or against it",
        caveat="significantly " + on_either_side(result, "step_along_state", "layer", "along", "against"),
        untrained=_ADDING,
        signed=True,
    )
    part = strongest(result, "attention_part", "layer", by=_away_from_half, unit="share", null=0.5)
    if not part.known:
        return
    yield part.claim(
        f"attention writes the {part.which('larger', 'smaller')} part of layer {part.select['layer']}'s step: "
        f"{part.estimate}",
        nothing="difference between attention's and the MLP's part of any layer's step",
        caveat="significantly "
        + on_either_side(result, "attention_part", "layer", "larger", "smaller", null=0.5),
        untrained=_ADDING,
    )


def _away_from_half(shares: np.ndarray) -> np.ndarray:
    return np.abs(shares - 0.5)


def _phases(result: xr.Dataset) -> Iterator[Claim]:
    better, places = drift_beaten(result), result.phase_begins.values
    if not better.significant:
        yield better.claim(
            "",
            nothing="phases beyond a smooth drift over layers",
            unknown="fewer than two passages",
            caveat="share of resamples in which phases beat a line and a parabola",
            untrained=_PHASES,
        )
        return
    for index, place in enumerate(places):
        begins = finding(result, "phase_begins", unit="1", units="passages", change=index)
        where = places_in_words([int(place)], "layer")
        yield replace(begins, tested=True, p=better.p, least_p=better.least_p).claim(
            f"a phase begins at {where}",
            nothing=f"beginning of a phase at {where}",
            caveat=f"phases beat a smooth drift in {better.estimate} of resamples",
            untrained=_PHASES,
        )


def _contrast(result: xr.Dataset) -> Claim:
    """The clearest of all quantities and layers: they are of different units, so that p decides."""
    first, _, second = restored(str(result.contrast.values[0])).partition(" − ")
    p = result.contrast_p.values[0]
    gap = strongest(
        result,
        "contrast_difference",
        ("compared", "layer"),
        by=lambda _: -p,
        p="contrast_p",
        unit="1",
        units="prompts",
        n=("contrast_n_first", "contrast_n_second"),
        contrast=str(result.contrast.values[0]),
    )
    name = COMPARED[result.compared.values.tolist().index(gap.select["compared"])]
    what = f"logarithm of the {long_name(name)}" if name in RATIOS else long_name(name)
    return gap.claim(
        f"the {what} is {gap.size} {gap.which('higher', 'lower')} at the last token in layer {gap.select['layer']} for "
        f"{first} than for {second}",
        nothing=f"difference between {first} and {second} along the path, in any layer",
        unknown="a category has fewer than two prompts after exclusions",
        caveat=f"{gap.clear} of {int(np.isfinite(p).sum())} comparisons are significant; prompts are not matched "
        "unless the set says so",
        untrained=("effect", "categories differ in their words"),
    )
