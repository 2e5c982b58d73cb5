"""What a lens shows, in sentences, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence.findings import number_or_none
from layerscope.evidence.groups import ALL_PROMPTS, PASSAGES, PROMPT, groups_named, main_group
from layerscope.experiments._lens_curves import curve
from layerscope.results.words import restored, stored


def claims(result: xr.Dataset) -> list[Claim]:
    """One for each group and lens, the depth halfway to the end, the null, pairs of categories."""
    groups = [PASSAGES] if PASSAGES in result.group.values else []
    groups += groups_named(result, PROMPT) or ([ALL_PROMPTS] if ALL_PROMPTS in result.group.values else [])
    return [
        *(
            claim
            for group in groups
            for lens in result.lens.values
            for claim in _settled(result, group, str(lens))
        ),
        *_against_the_null(result),
        *_pairs(result),
    ]


def _settled(result: xr.Dataset, group: str, lens: str) -> Iterator[Claim]:
    here = result.sel(group=stored(group), lens=lens)
    n, n_layers = int(here.settled_n), result.sizes["depth"] - 1
    name = group.removeprefix(PROMPT)
    select = {"variable": "settled", "group": stored(group), "lens": lens}
    if n == 0:
        yield Claim(
            text=f"{name}: the answer is never settled through the {lens}",
            caveat="no prompt is left after exclusions, or none ends with its answer on top",
            select=select,
        )
        return
    yield Claim(
        text=f"{name}: through the {lens} the answer first leads at depth {float(here.first_leads):.1f} and is settled "
        f"at depth {float(here.settled):.1f} of {n_layers}",
        value=float(here.settled),
        low=number_or_none(here.settled_low),
        high=number_or_none(here.settled_high),
        caveat=f"mean over {n} {'passages' if group == PASSAGES else 'prompts'}; what a lens cannot read may be "
        "there all the same",
        select=select,
    )


def _against_the_null(result: xr.Dataset) -> Iterator[Claim]:
    """The first depth whose lens is nearer to the end than the average prediction is."""
    group = main_group(result)
    average = float(result.kl_to_average.sel(group=stored(group)))
    for lens in map(str, result.lens.values):
        kl = curve(result, group, "kl", lens)
        better = np.flatnonzero(kl.high.values < average)
        if not np.isfinite(average) or not np.isfinite(kl.high.values).any():
            continue
        depth = int(better[0]) if better.size else result.sizes["depth"] - 1
        yield Claim(
            text=f"from depth {depth} on the {lens} is nearer to the final distribution than the average prediction "
            f"({average:.2f} nat)"
            if better.size
            else f"at no depth is the {lens} nearer to the final distribution than the average prediction",
            value=float(kl.value[depth]),
            low=number_or_none(kl.low[depth]),
            high=number_or_none(kl.high[depth]),
            significant=bool(better.size),
            caveat="the average of the other positions' final distributions; the interval is of the divergence there",
            select={
                "variable": "curve",
                "group": stored(group),
                "quantity": "kl",
                "lens": lens,
                "depth": depth,
            },
        )


def _pairs(result: xr.Dataset) -> Iterator[Claim]:
    if "contrast" not in result.dims:
        return
    p = result.p_adjusted.values
    for place in np.flatnonzero(np.isfinite(p)):
        here = result.isel(contrast=place)
        first, second = (restored(str(here[f"contrast_{which}"].values)) for which in ("first", "second"))
        difference, clear = float(here.difference), bool(p[place] < 0.05)
        order = "earlier" if difference < 0 else "later"
        yield Claim(
            text=f"{first} is settled {abs(difference):.1f} blocks {order} than {second}"
            if clear
            else f"{first} and {second} are not distinguishable in the depth at which the answer is settled",
            value=difference,
            low=number_or_none(here.difference_low),
            high=number_or_none(here.difference_high),
            p_adjusted=float(p[place]),
            significant=clear,
            caveat="permutation over prompts, Holm's correction over pairs; prompts are not matched in confidence or "
            "length unless the set says so",
            select={"variable": "difference", "contrast": str(here.contrast.values)},
        )
    if np.isnan(p).any():
        yield Claim(
            text=f"{int(np.isnan(p).sum())} of {len(p)} pairs of categories cannot be compared",
            caveat="a category has fewer than two prompts whose answer is settled",
            select={"variable": "p_adjusted"},
        )
