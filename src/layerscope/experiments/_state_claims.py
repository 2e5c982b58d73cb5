"""The state's path in sentences, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import finding, places_in_words, wording
from layerscope.evidence.findings import number_or_none
from layerscope.evidence.groups import FIRST, PASSAGES, main_group
from layerscope.experiments._state_curves import curve
from layerscope.results.words import restored

_SURE = 0.95


def claims(result: xr.Dataset) -> list[Claim]:
    """Growth, the first token, massive dimensions, what layers write, phases, categories."""
    return [
        *_growth(result),
        *_first_token(result),
        *_massive(result),
        *_writing(result),
        *_phases(result),
        *_categories(result),
    ]


def _growth(result: xr.Dataset) -> Iterator[Claim]:
    group = main_group(result)
    rate = finding(result, "growth_rate", unit="share", units=group)
    where = f"from depth {result.attrs['growth_first']} to {result.attrs['growth_last']}"
    yield rate.claim(
        f"{where}, the residual stream {rate.which('grows', 'shrinks')} by {rate.size} per layer",
        nothing=f"growth of the residual stream {where}",
        unknown=f"all {group} were left out; the reasons are listed",
        caveat="slope of log norm over depth; cosines between neighbouring depths rise with growth alone",
    )


def _first_token(result: xr.Dataset) -> Iterator[Claim]:
    if FIRST not in result.group.values:
        return
    first = curve(result, FIRST, "norm")
    ratio = (first.value / curve(result, PASSAGES, "norm").value).values
    depth = int(np.nanargmax(ratio))
    yield Claim(
        text=f"the first token's state is up to {ratio[depth]:.1f} times as long as the others', at depth {depth}",
        value=float(first.value[depth]),
        low=number_or_none(first.low[depth]),
        high=number_or_none(first.high[depth]),
        caveat="the number and its interval are its norm there (geometric mean over passages); the first "
        "token is BOS where one is put in front, and a large ratio marks an attention sink",
        select={"variable": "depth_curve", "group": FIRST, "over_depth": "norm", "depth": depth},
    )


def _massive(result: xr.Dataset) -> Iterator[Claim]:
    group = main_group(result)
    share = curve(result, group, "massive_share")
    if not np.isfinite(share.value.values).any():
        return
    depth, expected = int(np.nanargmax(share.value.values)), float(result.massive_share_expected)
    low = number_or_none(share.low[depth])
    yield Claim(
        text=f"the {result.sizes['rank']} largest entries of a state hold up to {float(share.value[depth]):.0%} "
        f"of its squared norm, at depth {depth}; {expected:.0%} would be chance",
        value=float(share.value[depth]),
        low=low,
        high=number_or_none(share.high[depth]),
        significant=None if low is None else low > expected,
        caveat="each state's own largest entries, first positions left out; chance is a state with normal entries",
        select={"variable": "depth_curve", "group": group, "over_depth": "massive_share", "depth": depth},
    )


def _writing(result: xr.Dataset) -> Iterator[Claim]:
    group = main_group(result)
    direction = curve(result, group, "step_direction")
    if np.isfinite(direction.low.values).any():
        against, along = (
            places_in_words(np.flatnonzero(found), "layer")
            for found in (direction.high < 0, direction.low > 0)
        )
        yield Claim(
            text=wording.sentence(
                f"steps go against the state before them in {against}, along it in {along}"
            ),
            caveat="cosine between a layer's step and the state before it, interval per layer without correction",
            select={"variable": "layer_curve", "group": group, "over_layers": "step_direction"},
        )
    share = curve(result, group, "attention_share").value.values
    if np.isfinite(share).any():
        larger = places_in_words(np.flatnonzero(share > 0.5), "layer")
        yield Claim(
            text=wording.sentence(f"attention makes the larger part of the step in {larger}"),
            caveat="share of the projection on the step; no interval is claimed for the list",
            select={"variable": "layer_curve", "group": group, "over_layers": "attention_share"},
        )


def _phases(result: xr.Dataset) -> Iterator[Claim]:
    if "phase_better" not in result:
        return
    better, places = float(result.phase_better), result.phase_begins.values
    sure = better >= _SURE
    if not len(places) or not sure:
        yield Claim(
            text=wording.null_sentence("phases beyond a smooth drift over layers"),
            value=number_or_none(result.phase_better),
            significant=False,
            caveat="share of resamples in which phases describe the curves better than a line or a parabola",
            select={"variable": "phase_better"},
        )
        return
    for index, place in enumerate(places):
        yield Claim(
            text=wording.sentence(f"a phase begins at layer {int(place)}"),
            value=float(place),
            low=number_or_none(result.phase_begins_low[index]),
            high=number_or_none(result.phase_begins_high[index]),
            significant=True,
            caveat=f"phases explain {float(result.phase_explained):.0%} of the standardised curves' variance and beat "
            f"a smooth drift in {better:.0%} of resamples; that layers differ does not say what they do",
            select={"variable": "phase_begins", "change": index},
        )


def _categories(result: xr.Dataset) -> Iterator[Claim]:
    if "contrast_p" not in result:
        return
    for place in range(result.sizes["contrast"]):
        here = result.isel(contrast=place)
        first, _, second = restored(str(here.contrast.values)).partition(" − ")
        p = here.contrast_p.values
        if not np.isfinite(p).any():
            yield Claim(
                text=f"{first} and {second} cannot be compared",
                caveat="a category has fewer than two prompts after exclusions",
                select={"variable": "contrast_p", "contrast": str(here.contrast.values)},
            )
            continue
        quantity, layer = np.unravel_index(np.nanargmin(p), p.shape)
        cell: dict[str, Any] = {
            "compared": str(here.compared.values[quantity]),
            "layer": int(here.layer.values[layer]),
        }
        gap = finding(
            result,
            "contrast_difference",
            p="contrast_p",
            unit="1",
            units="prompts",
            contrast=str(here.contrast.values),
            **cell,
        )
        what = restored(cell["compared"])
        yield gap.claim(
            f"{what} is {gap.size} {gap.which('higher', 'lower')} at the last token in layer {cell['layer']} for "
            f"{first} than for {second}",
            nothing=f"difference between {first} and {second} along the path, in any layer",
            caveat=f"smallest p of {np.isfinite(p).sum()} comparisons, of which {int((p < 0.05).sum())} are "
            "significant; permutation of prompts, corrected for all layers, quantities and pairs; prompts are not "
            "matched in length, distance or confidence unless the set says so",
        )
