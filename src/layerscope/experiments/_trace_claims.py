"""A causal trace in sentences, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments._contract import Claim
from layerscope.results.words import restored


def claims(result: xr.Dataset) -> list[Claim]:
    """One claim per category, one per pair of categories, one about other routes."""
    return [*_claims_of_categories(result), *_claims_of_contrasts(result), *_claim_of_other_routes(result)]


def _claims_of_categories(result: xr.Dataset) -> Iterator[Claim]:
    for name in result.category.values:
        here = result.sel(category=name)
        n = int(here.mean_transition_n)
        if n == 0:
            yield Claim(
                text=f"{restored(str(name))}: no transition can be stated",
                caveat="no prompt of this category is left after exclusions",
                select={"variable": "mean_transition", "category": str(name)},
            )
            continue
        yield Claim(
            text=f"{restored(str(name))}: the answer crosses to the last token at depth "
            f"{float(here.mean_transition):.1f} of {result.sizes['depth'] - 1}",
            value=float(here.mean_transition),
            low=_number(here.mean_transition_low),
            high=_number(here.mean_transition_high),
            caveat=f"mean over {n} prompts" + ("; too few for an interval to be trusted" if n < 6 else ""),
            select={"variable": "mean_transition", "category": str(name)},
        )


def _claims_of_contrasts(result: xr.Dataset) -> Iterator[Claim]:
    for name in result.contrast.values:
        here = result.sel(contrast=name)
        first, second = (restored(str(here[f"contrast_{which}"].values)) for which in ("first", "second"))
        difference, p = float(here.difference), float(here.p_adjusted)
        if np.isnan(p):
            text, clear = f"{first} and {second} cannot be compared", None
        elif p < 0.05:
            order = "earlier" if difference < 0 else "later"
            text, clear = f"{first} crosses {abs(difference):.1f} blocks {order} than {second}", True
        else:
            text, clear = f"{first} and {second} are not distinguishable in transition depth", False
        yield Claim(
            text=text,
            value=None if np.isnan(difference) else difference,
            low=_number(here.difference_low),
            high=_number(here.difference_high),
            p_adjusted=None if np.isnan(p) else p,
            distinguishable=clear,
            caveat="prompts are not matched in length, distance or confidence unless the set says so"
            if clear is not None
            else "a category has fewer than two prompts with a transition",
            select={"variable": "difference", "contrast": str(name)},
        )


def _claim_of_other_routes(result: xr.Dataset) -> Iterator[Claim]:
    share = float(result.mean_routed_elsewhere)
    if not np.isnan(share):
        yield Claim(
            text=f"{share:.0%} of the recovery lies at tokens that are neither noised nor last",
            value=share,
            low=_number(result.mean_routed_elsewhere_low),
            high=_number(result.mean_routed_elsewhere_high),
            caveat="positive recoveries only, so chance alone makes it larger than zero",
            select={"variable": "mean_routed_elsewhere"},
        )


def _number(value: Any) -> float | None:
    number = float(value)
    return None if np.isnan(number) else number
