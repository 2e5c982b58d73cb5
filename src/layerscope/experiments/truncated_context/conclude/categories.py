"""Which kinds of tokens need more than their last tokens: medians at matched positions, with and without sinks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from layerscope.evidence import Over, Resampled, holm_over, named, side_by_side
from layerscope.evidence.families import with_p
from layerscope.experiments.truncated_context.settings import Settings
from layerscope.maths.quantiles import matched_weights, weighted_quantiles
from layerscope.maths.simultaneous import two_sided_p
from layerscope.maths.sinks import TIMES_THE_MEDIAN
from layerscope.results.escaping import restored
from layerscope.text.categories import category_names

_POSITION_STRATA = 5
FEWEST_PASSAGES = 6
"""Passages that must hold a category for an interval and a p: were there fewer, even passages that all agree would
not tell it from another at 5 % (2 / 2⁵ = .06), while resamples of two or three passages always would."""


def categories(cut: xr.Dataset, over: Over, settings: Settings) -> xr.Dataset:
    """Similarity of each category, with its counts, without sinks, and its difference from the alphabetic tokens."""
    members = _members(cut, settings)
    values = named(
        cut.similarity.sel(kept_tokens=settings.local, drop=True),
        "category_similarity",
        f"median similarity with the last {settings.local} tokens",
    )
    strata = _strata(cut.position.to_numpy())
    found = {name: over.medians(values, matched_weights(who, strata)) for name, who in members.items()}
    medians = {name: over.quantity(_where_enough(one)) for name, one in found.items()}
    return xr.merge(
        [
            side_by_side(medians, "category", "category of the token"),
            _beside(cut, values, members, found, strata, settings),
            _contrasts(over, found),
        ]
    )


def _members(cut: xr.Dataset, settings: Settings) -> dict[str, np.ndarray]:
    """Which tokens belong to each category or trait; those that nobody has are left out."""
    kinds, pieces = (
        np.array([restored(str(one)) for one in cut[name].to_numpy()])
        for name in ("token_category", "token_piece")
    )
    members = {name: kinds == name for name in category_names(settings.categories)}
    members["pronoun"] = cut.pronoun.to_numpy()
    for piece in ("whole word", "first piece", "middle piece", "last piece"):
        members[piece] = pieces == piece
    members["end of a name"] = cut.entity_final.to_numpy()
    return {name: who for name, who in members.items() if who.any()}


def _beside(
    cut: xr.Dataset,
    values: xr.DataArray,
    members: dict[str, np.ndarray],
    found: dict[str, Resampled],
    strata: np.ndarray,
    settings: Settings,
) -> xr.Dataset:
    """Medians without tokens that act as sinks, norms of cut states, and how many tokens and passages there are."""
    sinks = sink_like(cut, settings.local)
    ratio = (cut.cut_norm.sel(kept_tokens=settings.local) / cut.full_norm).to_numpy()
    without, ratios = [], []
    for who in members.values():
        clean = matched_weights(who & ~sinks, strata)
        without.append(weighted_quantiles(values.to_numpy(), clean, [0.5])[0])
        ratios.append(weighted_quantiles(ratio, matched_weights(who, strata), [0.5])[0])
    curve, one = ("category", "depth"), ("category",)
    counts = [(int(who.sum()), int((who & sinks).sum())) for who in members.values()]
    return xr.merge(
        [
            named(
                without,
                "category_without_sinks",
                "median similarity, without tokens that act as sinks",
                dims=curve,
            ),
            named(
                ratios,
                "category_norm_ratio",
                "norm of the cut state over that of the full one, median",
                dims=curve,
            ),
            named([count for count, _ in counts], "category_tokens", "tokens of the category", dims=one),
            named(
                [count for _, count in counts],
                "category_sinks",
                "of them, tokens that act as sinks in the full or the cut run",
                dims=one,
            ),
            named(
                [_held(each) for each in found.values()],
                "category_passages",
                "passages that hold such tokens",
                dims=one,
            ),
        ]
    )


def base_category(names: Sequence[str]) -> str:
    """What categories are compared with: the alphabetic tokens, or the first category of others."""
    return "alphabetic" if "alphabetic" in names else names[0]


def said_of(category: str) -> str:
    """How a category is called in a sentence."""
    return f"{category} tokens" if category in ("alphabetic", "other") else f"“{category}”"


def _held(one: Resampled) -> int:
    """Passages that hold such tokens with so much context."""
    return int(one.n.max())


def _where_enough(one: Resampled) -> Resampled:
    """Without draws, and so without an interval, where too few passages hold such tokens."""
    return Resampled(one.value, one.draws.where(one.n >= FEWEST_PASSAGES), one.n)


def _contrasts(over: Over, found: dict[str, Resampled]) -> xr.Dataset:
    """Each category less the alphabetic tokens, after the first layer, with p by Holm's method over all of them.

    Where a run has other categories, the first of them takes the place of the alphabetic tokens.
    """
    base = base_category(list(found))
    first = {name: one.map(lambda curve: curve.isel(depth=1, drop=True)) for name, one in found.items()}
    parts = {}
    for name, one in first.items():
        apart = (one - first[base]).named(
            "category_difference", f"median similarity after the first layer, less that of {said_of(base)}"
        )
        enough = min(_held(found[name]), _held(found[base])) >= FEWEST_PASSAGES
        apart = apart if enough else Resampled(apart.value, apart.draws * np.nan, apart.n)
        told = enough and name != base
        p = two_sided_p(apart.draws.to_numpy()) if told else np.nan
        least = 2 / (1 + over.settings.resamples) if told else np.nan
        parts[name] = over.quantity(apart).assign(
            with_p("category_difference", (), p, least, "p of the difference")
        )
    laid = holm_over(side_by_side(parts, "category", "category of the token"), "category_difference")
    return laid.rename(category_difference_p_adjusted="category_p_adjusted")


def _strata(positions: np.ndarray) -> np.ndarray:
    """Fifths of the positions at which tokens stand."""
    edges = np.quantile(positions, np.linspace(0, 1, _POSITION_STRATA + 1)[1:-1])
    return np.searchsorted(np.unique(edges), positions, side="right")


def sink_like(cut: xr.Dataset, length: int) -> np.ndarray:
    """Tokens that act as sinks in the full run, or once their context is cut, at any depth."""
    long = (cut.cut_norm.sel(kept_tokens=length) > TIMES_THE_MEDIAN * cut.text_norm).any("depth")
    return np.asarray(cut.sink | long)
