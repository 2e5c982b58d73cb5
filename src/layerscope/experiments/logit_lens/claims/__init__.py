"""What a lens shows, in sentences: when answers lead and are settled, against the null, and between categories."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import claims_of_pairs, finding, strongest
from layerscope.evidence.groups import ALL_PROMPTS, PASSAGES, PROMPT
from layerscope.experiments.logit_lens.claims.direct import direct_claims
from layerscope.experiments.logit_lens.claims.order import latest_first
from layerscope.results.escaping import stored
from layerscope.text.prompt_files import UNCATEGORISED

_PLACE: Untrained = ("not applicable", "a depth, not an effect")
_OWN_END: Untrained = ("effect", "residual streams come nearer to their own end in fresh weights too")


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """One for each group and lens, the first depth beyond the null, pairs of categories, and who writes the answer."""
    groups = [PASSAGES] if PASSAGES in result.group.values else []
    groups += latest_first(result) or ([ALL_PROMPTS] if ALL_PROMPTS in result.group.values else [])
    lenses = [str(lens) for lens in result.lens.values]
    for group in groups:
        yield from (_settled(result, group, lens) for lens in lenses)
    if (
        "nearer_than_average" in result and np.isfinite(result.nearer_than_average).any()
    ):  # of one alone it is not
        yield from (_against_the_average(result, lens) for lens in lenses)
    yield from _pairs(result)
    yield from direct_claims(result)


def _settled(result: xr.Dataset, group: str, lens: str) -> Claim:
    units, answer, of_group = ("passages", "the model's final choice", " in passages")
    if group != PASSAGES:
        name = group.removeprefix(PROMPT)
        units, answer = "prompts", "the answer"
        of_group = "" if name in (UNCATEGORISED, ALL_PROMPTS) else f" for {name}"
    settled = finding(result, "settled", unit="1", units=units, group=stored(group), lens=lens)
    if not settled.known:
        return settled.claim(
            "",
            nothing=f"depth at which {answer} is settled through the {lens}{of_group}",
            unknown="no prompt is left after exclusions, or none ends with its answer on top",
            untrained=_PLACE,
        )
    leads = finding(result, "first_leads", unit="1", group=stored(group), lens=lens)
    return settled.claim(
        f"through the {lens}, {answer} first leads at depth {leads.estimate} and is settled at depth "
        f"{settled.estimate} of {result.sizes['depth'] - 1}{of_group}",
        untrained=_PLACE,
    )


def _against_the_average(result: xr.Dataset, lens: str) -> Claim:
    """The first depth that is nearer to the end than the average prediction, not counting the last."""
    gain = strongest(result, "nearer_than_average", "depth", by=_earliest_gain, lens=lens)
    depth = gain.select["depth"]
    return gain.claim(
        f"at depth {depth} the {lens} is {gain.which('nearer to', 'farther from')} the final distribution than the "
        f"average prediction is, by a divergence of {gain.size}",
        nothing=f"difference in divergence between the {lens} and the average prediction, before the last depth",
        unknown="one position alone has no other to average over",
        caveat="the first depth that is significantly nearer, if any",
        untrained=_OWN_END,
    )


def _earliest_gain(gains: np.ndarray) -> np.ndarray:
    """Gains before losses, and of each the one at the least depth."""
    return np.where(gains > 0, len(gains), 0) - np.arange(len(gains))


def _pairs(result: xr.Dataset) -> Iterator[Claim]:
    if "contrast" not in result.dims:
        return
    yield from claims_of_pairs(
        result,
        says=lambda gap, first, second: (
            f"the answer is settled {gap.size} {gap.which('later', 'earlier')} for {first} than for {second}"
        ),
        nothing="difference in the depth at which the answer is settled",
        caveat="prompts are not matched unless the set says so",
        untrained=("null", "answers of fresh weights are settled at depths that know no category"),
    )
