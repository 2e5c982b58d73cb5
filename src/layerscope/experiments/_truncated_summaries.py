"""From kept similarities to medians, bands, categories, arrivals and the numbers that claims rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.experiments._coordinates import number_coordinate, text_coordinate
from layerscope.experiments._distances import cautions_of_unread
from layerscope.experiments._summaries import interval_variables
from layerscope.experiments._truncated_reach import reach_lengths, shortest_enough
from layerscope.maths.bootstrap import Interval, bootstrap_mean, interval_of_draws, resampled_counts
from layerscope.maths.depth_profile import apart, half_rise
from layerscope.maths.permutation import holm
from layerscope.maths.quantiles import QuantileDraws, matched_weights, quantile_draws, weighted_quantiles
from layerscope.maths.sinks import TIMES_THE_MEDIAN
from layerscope.results.schema import quantity, write_json
from layerscope.results.words import restored
from layerscope.text.categories import category_names

if TYPE_CHECKING:
    from layerscope.experiments.truncated_context import Settings

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_POSITION_STRATA = 5


def summarised(cut: xr.Dataset, prefix: xr.Dataset, settings: Settings) -> xr.Dataset:
    """The result: everything that was kept, and what follows from it."""
    named, documents = np.unique(cut.token_passage.values, return_inverse=True)
    ground = _Ground(cut, documents, len(named), settings)
    shown = shown_lengths(cut, settings)
    result = cut.assign_coords(
        context_length=number_coordinate(shown, "context_length", "context kept [tokens]"),
        quantile=xr.Variable(("quantile",), np.array(QUANTILES), {"long_name": "quantile over tokens"}),
    )
    result = result.assign(_medians(ground, shown)).assign(_bands(cut)).assign(_reach(ground))
    result = _with_categories(result, ground)
    result = result.assign(_arrivals(ground)).assign(_numbers(ground))
    result = result.assign(_prefix(prefix, settings)) if prefix.sizes else result
    if prefix.sizes:
        result = result.assign_coords(name=prefix["name"])
    result = result.assign_attrs(
        local=settings.local,
        prefix=settings.prefix,
        passages=len(named),
        instead=settings.instead,
        enough=settings.enough,
    )
    return write_json(result, cautions=_cautions(result))


class _Ground:
    """The kept numbers, whose token is whose, and how intervals are made."""

    def __init__(self, cut: xr.Dataset, documents: np.ndarray, units: int, settings: Settings) -> None:
        self.cut, self.documents, self.units, self.settings = cut, documents, units, settings

    def draws(self, values: np.ndarray, weights: np.ndarray | None = None) -> QuantileDraws:
        """The median over tokens, and its resamples over passages."""
        s = self.settings
        return quantile_draws(
            values, self.documents, units=self.units, seed=s.seed, weights=weights, resamples=s.resamples
        )

    def interval(self, value: Any, draws: np.ndarray, level: float | None = None) -> Interval:
        """The interval of a number that was computed from draws."""
        level = self.settings.level if level is None else level
        return interval_of_draws(np.asarray(value), draws, units=self.units, level=level)

    def similarity(self, length: int) -> np.ndarray:
        """[token depth] at one context length."""
        return self.cut.similarity.sel(kept_tokens=length).values


def shown_lengths(cut: xr.Dataset, settings: Settings) -> list[int]:
    """The context lengths that get intervals: 1, half the local one, the local one, and the ladder's."""
    known = set(cut.kept_tokens.values.tolist())
    some = np.isfinite(cut.similarity.values).any(axis=(0, 2))
    there = {int(k) for k, any_ in zip(cut.kept_tokens.values, some, strict=True) if any_}
    last = {int(k) for k in cut.kept_tokens.values if k > settings.every}
    return sorted(
        {1, max(1, settings.local // 2), settings.local, *last} & known & (there | {settings.local})
    )


def _top(ground: _Ground) -> tuple[np.ndarray, np.ndarray]:
    """What a similarity of "all the same" is, by depth, and its draws: 1, or the ceiling at moved positions."""
    depths = ground.cut.sizes["depth"]
    ones = np.ones(depths), np.ones((ground.settings.resamples, depths))
    if not ground.cut.shifted.values.any() or np.isnan(ground.cut.ceiling.values).all():
        return ones
    ceiling = ground.draws(ground.cut.ceiling.values)
    return ceiling.value, ceiling.draws


def _rescaled(value: np.ndarray, floor: np.ndarray, top: np.ndarray) -> np.ndarray:
    """(similarity − floor) / (top − floor); NaN where floor and top touch."""
    room = np.where(top - floor > 1e-6, top - floor, np.nan)
    return np.asarray((value - floor) / room)


def _medians(ground: _Ground, shown: list[int]) -> dict[str, xr.Variable]:
    cut, level = ground.cut, ground.settings.level
    values = cut.similarity.sel(kept_tokens=shown).values
    found, floor = ground.draws(values), ground.draws(cut.floor.values)
    top, top_draws = _top(ground)
    scaled = _rescaled(found.value, floor.value, top)
    scaled_draws = _rescaled(found.draws, floor.draws[:, None], top_draws[:, None])
    variables = interval_variables(
        "median_similarity",
        found.interval(level),
        "context_length depth",
        "median similarity with the whole context",
    )
    variables |= interval_variables(
        "rescaled_similarity",
        ground.interval(scaled, scaled_draws),
        "context_length depth",
        "median similarity between floor (0) and ceiling (1)",
    )
    variables |= interval_variables(
        "median_floor",
        floor.interval(level),
        "depth",
        "median similarity when only the token itself is the same",
    )
    variables |= interval_variables(
        "median_ceiling",
        ground.draws(cut.ceiling.values).interval(level),
        "depth",
        "median similarity of the full run at moved positions",
    )
    squares = ground.draws(values**2)
    return variables | interval_variables(
        "explained",
        squares.interval(level),
        "context_length depth",
        "median share of norm explained (squared cosine)",
    )


def _bands(cut: xr.Dataset) -> dict[str, xr.Variable]:
    values = cut.similarity.values
    found = weighted_quantiles(values, np.ones(len(values)), QUANTILES)
    counts = np.isfinite(values).any(axis=2).sum(axis=0)
    return {
        "similarity_quantile": quantity(
            found, "quantile kept_tokens depth", "similarity, quantile over tokens"
        ),
        "tokens_cut": quantity(counts, "kept_tokens", "tokens measured at this context length"),
    }


def _reach(ground: _Ground) -> dict[str, xr.Variable]:
    """How many of its last tokens decide a state, by depth: from there on the median similarity is high enough."""
    lengths = reach_lengths(ground.cut)
    found = ground.draws(ground.cut.similarity.sel(kept_tokens=lengths).values)
    enough = ground.settings.enough
    value, draws = (shortest_enough(part, lengths, enough) for part in (found.value, found.draws))
    return _bounded(
        "reach",
        ground.interval(value, draws),
        "depth",
        f"shortest context from which on the median similarity is at least {enough:g}",
        "token",
    )


# -- categories ----------------------------------------------------------------------------------------


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


def _with_categories(result: xr.Dataset, ground: _Ground) -> xr.Dataset:
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
    intervals = [one.interval(settings.level) for one in found]
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
    variables |= _contrasts(ground, dict(zip(members, found, strict=True)))
    names = text_coordinate(list(members), "category", "category of the token")
    return result.assign(variables).assign_coords(category=names)


def _contrasts(ground: _Ground, found: dict[str, QuantileDraws]) -> dict[str, xr.Variable]:
    """Each category less the alphabetic tokens, after the first block, with p by Holm's method over all of them."""
    depth = 1
    base = found.get("alphabetic") or next(iter(found.values()))
    values = [one.value[depth] - base.value[depth] for one in found.values()]
    draws = [one.draws[:, depth] - base.draws[:, depth] for one in found.values()]
    intervals = [ground.interval(value, drawn) for value, drawn in zip(values, draws, strict=True)]
    stacked = Interval(
        *(np.stack([getattr(i, end) for i in intervals]) for end in ("value", "low", "high", "n"))
    )
    p = [
        np.nan if one is base else _two_sided(drawn) for one, drawn in zip(found.values(), draws, strict=True)
    ]
    variables = _bounded(
        "category_difference",
        stacked,
        "category",
        "median similarity after the first block, less that of alphabetic tokens",
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


# -- arrivals ------------------------------------------------------------------------------------------


def _arrivals(ground: _Ground) -> dict[str, xr.Variable]:
    """Mean arrival curves over passages, and where the second and the last closed range reach half their height."""
    settings, means = ground.settings, _per_document(ground, ground.cut.arrival.values)
    how: dict[str, Any] = {"seed": settings.seed, "level": settings.level, "resamples": settings.resamples}
    variables = interval_variables(
        "mean_arrival",
        bootstrap_mean(means, **how),
        "range depth",
        "change of the state, over the full one's length",
    )
    counts = resampled_counts(ground.units, seed=settings.seed, resamples=settings.resamples)
    rises, draws = _half_rises(means, np.ones((1, ground.units)))[0], _half_rises(means, counts)
    near, far = 0, max(0, rises.shape[0] - 2)
    variables |= _bounded(
        "half_rise",
        ground.interval(rises, draws),
        "range",
        "depth of half of an arrival curve's height",
        "block",
    )
    return variables | _bounded(
        "half_rise_difference",
        ground.interval(
            apart(np.asarray(rises[far]), np.asarray(rises[near])), apart(draws[:, far], draws[:, near])
        ),
        "",
        "half-rise of the far range less that of the near one",
        "block",
    )


def _half_rises(means: np.ndarray, counts: np.ndarray) -> np.ndarray:
    known = np.isfinite(means).all(axis=2, keepdims=True)
    filled = np.where(known, means, 0.0)
    sums = np.einsum("ru,uad->rad", counts, filled)
    weights = np.einsum("ru,ua->ra", counts, known[..., 0].astype(float))[..., None]
    return half_rise(np.where(weights > 0, sums / np.where(weights > 0, weights, 1.0), np.nan))


def _per_document(ground: _Ground, values: np.ndarray) -> np.ndarray:
    """Mean over the tokens of each passage that have a value [passage ...]."""
    found = np.full((ground.units, *values.shape[1:]), np.nan)
    for unit in range(ground.units):
        mine = values[ground.documents == unit]
        known = np.isfinite(mine)
        count = known.sum(axis=0)
        total = np.where(known, mine, 0.0).sum(axis=0)
        found[unit] = np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)
    return found


def _bounded(
    name: str, interval: Interval, dims: str, long_name: str, units: str = "1"
) -> dict[str, xr.Variable]:
    """An interval that holds its value, as variables."""
    low = np.asarray(np.minimum(interval.low, interval.value))
    high = np.asarray(np.maximum(interval.high, interval.value))
    return interval_variables(name, Interval(interval.value, low, high, interval.n), dims, long_name, units)


# -- the numbers of claims -----------------------------------------------------------------------------


def _numbers(ground: _Ground) -> dict[str, xr.Variable]:
    """Early less middle depths, the last step, and five tokens against one, in plain similarity.

    Not rescaled: where the floor lies near 1 the ratio grows without bound.
    """
    settings, last = ground.settings, ground.cut.sizes["depth"] - 1

    def at(length: int) -> tuple[np.ndarray, np.ndarray]:
        found = ground.draws(ground.similarity(length))
        return found.value, found.draws

    def contrast(name: str, one: Any, other: Any, long_name: str) -> dict[str, xr.Variable]:
        (value, draws), (less, less_draws) = one, other
        return _bounded(name, ground.interval(value - less, draws - less_draws), "", long_name)

    value, draws = at(settings.local)
    early, middle = slice(1, 1 + max(1, last // 5)), slice(max(1, 2 * last // 5), max(2, 1 + 4 * last // 5))
    some = [int(k) for k in (max(1, settings.local // 2), 1) if k in ground.cut.kept_tokens.values]
    more, fewer = at(some[0]), at(some[-1])
    return (
        contrast(
            "early_less_middle",
            (value[early].mean(), draws[:, early].mean(axis=1)),
            (value[middle].mean(), draws[:, middle].mean(axis=1)),
            "median similarity with local context, first fifth of depth less middle",
        )
        | contrast(
            "last_step",
            (value[last], draws[:, last]),
            (value[last - 1], draws[:, last - 1]),
            "median similarity with local context, last depth less the one before",
        )
        | contrast(
            "recent_tokens",
            (more[0][1], more[1][:, 1]),
            (fewer[0][1], fewer[1][:, 1]),
            "median similarity after the first block, half the local context less the token alone",
        )
    )


def _prefix(prefix: xr.Dataset, settings: Settings) -> dict[str, xr.Variable]:
    how: dict[str, Any] = {"seed": settings.seed, "level": settings.level, "resamples": settings.resamples}
    variables: dict[str, xr.Variable] = {
        str(name): values.variable for name, values in prefix.data_vars.items()
    }
    for name in ("prefix_similarity", "last_token_similarity"):
        interval = bootstrap_mean(prefix[name].values, **how)
        variables |= interval_variables(f"mean_{name}", interval, "depth", f"{prefix[name].long_name}, mean")
    return variables


def _cautions(result: xr.Dataset) -> list[str]:
    cautions = []
    if result.shifted.values.any():
        cautions.append(
            "Positions are counted anew in cut texts: what a token loses by moving is part of what it loses by the cut."
        )
    if result.window_unknown.values.any():
        cautions.append(
            "This family's attention cannot be watched: if it has windowed layers, cut texts may see BOS there where "
            "the full run does not."
        )
    local = result.median_similarity.sel(context_length=int(result.attrs["local"]))
    below = int((local < result.median_floor - 0.01).sum())
    if below and result.attrs["instead"] != "another text":
        cautions.append(
            f"At {below} of {result.sizes['depth']} depths the local context alone leaves a state less like the full "
            "one than another text of equal length does: there the cut is felt for the length that is missing, not for "
            'its words. --set instead="another text" keeps the length.'
        )
    if np.isnan(result.floor.values).all():
        cautions.append("No floor: it takes a second passage to stand in the first one's place.")
    return [*cautions, *cautions_of_unread(result)]
