"""Which kinds of tokens need more than their last tokens: medians at matched positions, with and without sinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.experiments._coordinates import text_coordinate
from layerscope.experiments._summaries import interval_variables
from layerscope.experiments._truncated_ground import Ground, bounded
from layerscope.maths.bootstrap import Interval
from layerscope.maths.permutation import holm
from layerscope.maths.quantiles import QuantileDraws, matched_weights, weighted_quantiles
from layerscope.maths.sinks import TIMES_THE_MEDIAN
from layerscope.results.schema import quantity
from layerscope.results.words import restored
from layerscope.text.categories import category_names

if TYPE_CHECKING:
    from layerscope.experiments.truncated_context import Settings

_POSITION_STRATA = 5
FEWEST_PASSAGES = 6
"""Passages that must hold a category for an interval and a p: were there fewer, even passages that all agree would
not tell it from another at 5 % (2 / 2⁵ = .06), while resamples of two or three passages always would."""


def _members(cut: xr.Dataset, settings: Settings) -> dict[str, np.ndarray]:
    """Which tokens belong to each category or trait; those that nobody has are left out."""
    members = {
        name: np.array([restored(str(found)) == name for found in cut.token_category.values])
        for name in category_names(settings.categories)
    }
    members["pronoun"] = cut.pronoun.values
    pieces = [restored(str(piece)) for piece in cut.token_piece.values]
    for piece in ("whole word", "first piece", "middle piece", "last piece"):
        members[piece] = np.array([found == piece for found in pieces])
    members["end of a name"] = cut.entity_final.values
    return {name: who for name, who in members.items() if who.any()}


def with_categories(result: xr.Dataset, ground: Ground) -> xr.Dataset:
    cut, settings = ground.cut, ground.settings
    members = _members(cut, settings)
    values, sinks = ground.similarity(settings.local), sink_like(cut, settings.local)
    strata = _strata(cut.position.values)
    ratio = cut.cut_norm.sel(kept_tokens=settings.local).values / cut.full_norm.values
    found, without, ratios, counts = [], [], [], []
    for who in members.values():
        weights = matched_weights(who, strata)
        found.append(ground.draws(values, weights))
        clean = matched_weights(who & ~sinks, strata)
        without.append(weighted_quantiles(values, clean, [0.5])[0])
        ratios.append(weighted_quantiles(ratio, weights, [0.5])[0])
        counts.append([int(who.sum()), int((who & sinks).sum())])
    intervals = [_where_enough(one.interval(settings.level), one) for one in found]
    stacked = Interval(
        *(np.stack([getattr(i, end) for i in intervals]) for end in ("value", "low", "high", "n"))
    )
    variables: dict[str, Any] = interval_variables(
        "category_similarity",
        stacked,
        "category depth",
        f"median similarity with the last {settings.local} tokens",
    )
    variables["category_without_sinks"] = quantity(
        np.stack(without), "category depth", "median similarity, without tokens that act as sinks"
    )
    variables["category_norm_ratio"] = quantity(
        np.stack(ratios), "category depth", "norm of the cut state over that of the full one, median"
    )
    variables["category_tokens"] = quantity(np.array(counts)[:, 0], "category", "tokens of the category")
    variables["category_sinks"] = quantity(
        np.array(counts)[:, 1], "category", "of them, tokens that act as sinks in the full or the cut run"
    )
    variables["category_passages"] = quantity(
        np.array([_held(one) for one in found]), "category", "passages that hold such tokens"
    )
    variables |= _contrasts(ground, dict(zip(members, found, strict=True)))
    names = text_coordinate(list(members), "category", "category of the token")
    return result.assign(variables).assign_coords(category=names)


def base_category(names: Sequence[str]) -> str:
    """What categories are compared with: the alphabetic tokens, or the first category of others."""
    return "alphabetic" if "alphabetic" in names else names[0]


def said_of(category: str) -> str:
    """How a category is called in a sentence."""
    return f"{category} tokens" if category in ("alphabetic", "other") else f"“{category}”"


def _held(one: QuantileDraws) -> int:
    """Passages that hold such tokens with so much context."""
    return int(one.present.max())


def _where_enough(interval: Interval, one: QuantileDraws) -> Interval:
    """The interval, without ends where too few passages hold such tokens."""
    low, high = (
        np.where(one.present < FEWEST_PASSAGES, np.nan, end) for end in (interval.low, interval.high)
    )
    return Interval(interval.value, low, high, interval.n)


def _contrasts(ground: Ground, found: dict[str, QuantileDraws]) -> dict[str, xr.Variable]:
    """Each category less the alphabetic tokens, after the first block, with p by Holm's method over all of them.

    Where a run has other categories, the first of them takes the place of the alphabetic tokens.
    """
    depth = 1
    name = base_category(list(found))
    base = found[name]
    values = [one.value[depth] - base.value[depth] for one in found.values()]
    draws = [one.draws[:, depth] - base.draws[:, depth] for one in found.values()]
    enough = [min(_held(one), _held(base)) >= FEWEST_PASSAGES for one in found.values()]
    intervals = [
        ground.interval(value, drawn if known else np.full_like(drawn, np.nan))
        for value, drawn, known in zip(values, draws, enough, strict=True)
    ]
    stacked = Interval(
        *(np.stack([getattr(i, end) for i in intervals]) for end in ("value", "low", "high", "n"))
    )
    p = [
        np.nan if one is base or not known else _two_sided(drawn)
        for one, drawn, known in zip(found.values(), draws, enough, strict=True)
    ]
    variables = bounded(
        "category_difference",
        stacked,
        "category",
        f"median similarity after the first block, less that of {said_of(name)}",
    )
    variables["category_p_adjusted"] = quantity(holm(p), "category", "p of the difference, by Holm's method")
    return variables


def _two_sided(draws: np.ndarray) -> float:
    """How rarely resamples of the passages reach the other side of zero, on both sides; never 0."""
    known = draws[np.isfinite(draws)]
    fewer = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return float(min(1.0, 2 * (fewer + 1) / (len(known) + 1))) if known.size else np.nan


def _strata(positions: np.ndarray) -> np.ndarray:
    """Fifths of the positions at which tokens stand."""
    edges = np.quantile(positions, np.linspace(0, 1, _POSITION_STRATA + 1)[1:-1])
    return np.searchsorted(np.unique(edges), positions, side="right")


def sink_like(cut: xr.Dataset, length: int) -> np.ndarray:
    """Tokens that act as sinks in the full run, or once their context is cut, at any depth."""
    long = cut.cut_norm.sel(kept_tokens=length).values > TIMES_THE_MEDIAN * cut.text_norm.values
    return np.asarray(cut.sink.values | long.any(axis=1))
