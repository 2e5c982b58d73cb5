"""What a lens shows, in sentences, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import finding, untested
from layerscope.evidence.groups import ALL_PROMPTS, PASSAGES, PROMPT, groups_named, main_group
from layerscope.experiments._lens_curves import curve
from layerscope.results.words import restored, stored


def claims(result: xr.Dataset) -> list[Claim]:
    """One for each group and lens, the depth halfway to the end, the null, pairs of categories."""
    groups = [PASSAGES] if PASSAGES in result.group.values else []
    groups += groups_named(result, PROMPT) or ([ALL_PROMPTS] if ALL_PROMPTS in result.group.values else [])
    return [
        *(_settled(result, group, str(lens)) for group in groups for lens in result.lens.values),
        *_against_the_null(result),
        *_pairs(result),
    ]


def _settled(result: xr.Dataset, group: str, lens: str) -> Claim:
    units = "passages" if group == PASSAGES else "prompts"
    settled = finding(result, "settled", unit="1", units=units, group=stored(group), lens=lens)
    name = group.removeprefix(PROMPT)
    if not settled.known:
        return settled.claim(
            "",
            nothing=f"depth at which the answer is settled through the {lens}, for {name}",
            unknown="no prompt is left after exclusions, or none ends with its answer on top",
        )
    leads = float(result.first_leads.sel(group=stored(group), lens=lens))
    return settled.claim(
        f"through the {lens}, the answer first leads at depth {settled.other(leads)} and is settled at depth "
        f"{settled.estimate} of {result.sizes['depth'] - 1} for {name}",
        caveat=f"mean over {settled.n[0]} {units}; what a lens does not show may be there all the same",
    )


def _against_the_null(result: xr.Dataset) -> Iterator[Claim]:
    """The first depth whose lens diverges less from the end than the average prediction does."""
    group = main_group(result)
    average = float(result.kl_to_average.sel(group=stored(group)))
    for lens in map(str, result.lens.values):
        high = curve(result, group, "kl", lens).high.values
        if not np.isfinite(average) or not np.isfinite(high).any():
            continue
        better = np.flatnonzero(high < average)
        depth = int(better[0]) if better.size else result.sizes["depth"] - 1
        cell: dict[str, Any] = {"group": stored(group), "quantity": "kl", "lens": lens, "depth": depth}
        kl = finding(result, "curve", unit="nat", units="texts", null=average, **cell)
        yield replace(kl, beyond=bool(better.size)).claim(
            f"the {lens} first diverges less from the final distribution than the average prediction does at depth "
            f"{depth}: {kl.estimate} against {kl.other(average)}",
            nothing=f"advantage of the {lens} over the average prediction at any depth",
            caveat="the average of the other positions' final distributions; the interval is of the divergence there",
        )


def _pairs(result: xr.Dataset) -> Iterator[Claim]:
    if "contrast" not in result.dims:
        return
    p = result.p_adjusted.values
    for place in np.flatnonzero(np.isfinite(p)):
        here = result.isel(contrast=slice(place, place + 1))
        first, second = (restored(str(here[f"contrast_{which}"].values[0])) for which in ("first", "second"))
        gap = finding(
            here,
            "difference",
            p="p_adjusted",
            unit="layer",
            units="prompts",
            n=("contrast_n",),
            contrast=str(here.contrast.values[0]),
        )
        yield gap.claim(
            f"the answer is settled {gap.size} {gap.which('later', 'earlier')} for {first} than for {second}",
            nothing=f"difference between {first} and {second} in the depth at which the answer is settled",
            caveat="permutation over prompts, Holm's correction over pairs; prompts are not matched in confidence or "
            "length unless the set says so",
        )
    if np.isnan(p).any():
        yield untested(
            result,
            "p_adjusted",
            "p_adjusted",
            nothing="difference in the depth at which the answer is settled",
            of="pairs of categories",
            units="prompts",
        )
