"""A causal trace in sentences, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.experiments import _trace_further_claims
from layerscope.experiments._contract import Claim
from layerscope.experiments._summaries import number_or_none
from layerscope.results.words import restored

_FEW = 10
"""Up to so many pairs, each has its sentence; of more, only those that can be told apart."""


def claims(result: xr.Dataset) -> list[Claim]:
    """Categories, pairs of categories, other routes; then whatever else was measured."""
    return [
        *_claims_of_categories(result),
        *_claims_of_contrasts(result),
        *_claim_of_other_routes(result),
        *_trace_further_claims.claims(result),
    ]


def _claims_of_categories(result: xr.Dataset) -> Iterator[Claim]:
    empty = []
    for name in result.category.values:
        here = result.sel(category=name)
        if int(here.mean_transition_n) == 0:
            empty.append(restored(str(name)))
        else:
            yield _claim_of_category(str(name), here, result.sizes["depth"] - 1)
    if empty:
        yield Claim(
            text=f"no transition can be stated for {', '.join(empty[:3])}"
            + (f" and {len(empty) - 3} more categories" if len(empty) > 3 else ""),
            caveat="no prompt of them has a transition after exclusions",
            select={"variable": "mean_transition_n"},
        )


def _claim_of_category(name: str, here: xr.Dataset, n_layers: int) -> Claim:
    n = int(here.mean_transition_n)
    return Claim(
        text=f"{restored(name)}: the answer crosses to the last token at depth "
        f"{float(here.mean_transition):.1f} of {n_layers}",
        value=float(here.mean_transition),
        low=number_or_none(here.mean_transition_low),
        high=number_or_none(here.mean_transition_high),
        caveat=f"mean over {n} prompts" + ("; too few for an interval to be trusted" if n < 6 else ""),
        select={"variable": "mean_transition", "category": name},
    )


def _claims_of_contrasts(result: xr.Dataset) -> Iterator[Claim]:
    p = result.p_adjusted.values
    clear, unclear, unknown = p < 0.05, p >= 0.05, np.isnan(p)
    few = len(p) <= _FEW
    for index in np.flatnonzero(clear | (unclear & few)):
        yield _claim_of_contrast(result.isel(contrast=index))
    if unclear.any() and not few:
        yield Claim(
            text=f"{int(unclear.sum())} of {len(p)} pairs of categories are not distinguishable in transition depth",
            significant=False,
            caveat="permutation over prompts, Holm's correction over all pairs",
            select={"variable": "p_adjusted"},
        )
    if unknown.any():
        yield Claim(
            text=f"{int(unknown.sum())} of {len(p)} pairs of categories cannot be compared",
            caveat="a category has fewer than two prompts with a transition",
            select={"variable": "p_adjusted"},
        )


def _claim_of_contrast(here: xr.Dataset) -> Claim:
    first, second = (restored(str(here[f"contrast_{which}"].values)) for which in ("first", "second"))
    difference, p = float(here.difference), float(here.p_adjusted)
    order = "earlier" if difference < 0 else "later"
    told_apart = f"{first} crosses {abs(difference):.1f} blocks {order} than {second}"
    return Claim(
        text=told_apart if p < 0.05 else f"{first} and {second} are not distinguishable in transition depth",
        value=difference,
        low=number_or_none(here.difference_low),
        high=number_or_none(here.difference_high),
        p_adjusted=p,
        significant=p < 0.05,
        caveat="prompts are not matched in length, distance or confidence unless the set says so",
        select={"variable": "difference", "contrast": str(here.contrast.values)},
    )


def _claim_of_other_routes(result: xr.Dataset) -> Iterator[Claim]:
    share = float(result.mean_routed_elsewhere)
    if not np.isnan(share):
        yield Claim(
            text=f"{share:.0%} of the recovery lies at tokens that are neither noised nor last",
            value=share,
            low=number_or_none(result.mean_routed_elsewhere_low),
            high=number_or_none(result.mean_routed_elsewhere_high),
            caveat="positive recoveries only, so chance alone makes it larger than zero",
            select={"variable": "mean_routed_elsewhere"},
        )
