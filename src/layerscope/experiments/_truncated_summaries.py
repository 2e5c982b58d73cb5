"""From kept similarities to medians, bands, categories, arrivals and the numbers that claims rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.experiments._coordinates import number_coordinate
from layerscope.experiments._distances import cautions_of_unread
from layerscope.experiments._summaries import interval_variables
from layerscope.experiments._truncated_categories import with_categories
from layerscope.experiments._truncated_ground import Ground, bounded
from layerscope.experiments._truncated_reach import reach_lengths, shortest_enough
from layerscope.maths.bootstrap import bootstrap_mean, resampled_counts
from layerscope.maths.depth_profile import apart, half_rise
from layerscope.maths.quantiles import weighted_quantiles
from layerscope.results.schema import quantity, write_json
from layerscope.results.words import restored

if TYPE_CHECKING:
    from layerscope.experiments.truncated_context import Settings

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)  # from the lowest token to the highest


def summarised(cut: xr.Dataset, prefix: xr.Dataset, settings: Settings) -> xr.Dataset:
    """The result: everything that was kept, and what follows from it."""
    named, documents = np.unique(cut.token_passage.values, return_inverse=True)
    ground = Ground(cut, documents, len(named), settings)
    shown = shown_lengths(cut, settings)
    result = cut.assign_coords(
        context_length=number_coordinate(shown, "context_length", "context kept [tokens]"),
        quantile=xr.Variable(("quantile",), np.array(QUANTILES), {"long_name": "quantile over tokens"}),
    )
    result = result.assign(_medians(ground, shown)).assign(_bands(cut)).assign(_reach(ground))
    result = with_categories(result, ground)
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
    return write_json(result, cautions=[*_cautions(result), *_pieces_as_words(result, settings)])


def shown_lengths(cut: xr.Dataset, settings: Settings) -> list[int]:
    """The context lengths that get intervals: 1, half the local one, the local one, and the ladder's."""
    known = set(cut.kept_tokens.values.tolist())
    some = np.isfinite(cut.similarity.values).any(axis=(0, 2))
    there = {int(k) for k, any_ in zip(cut.kept_tokens.values, some, strict=True) if any_}
    last = {int(k) for k in cut.kept_tokens.values if k > settings.every}
    return sorted(
        {1, max(1, settings.local // 2), settings.local, *last} & known & (there | {settings.local})
    )


def _top(ground: Ground) -> tuple[np.ndarray, np.ndarray]:
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


def _medians(ground: Ground, shown: list[int]) -> dict[str, xr.Variable]:
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


def _reach(ground: Ground) -> dict[str, xr.Variable]:
    """How many of its last tokens decide a state, by depth: from there on the median similarity is high enough."""
    lengths = reach_lengths(ground.cut)
    found = ground.draws(ground.cut.similarity.sel(kept_tokens=lengths).values)
    enough = ground.settings.enough
    value, draws = (shortest_enough(part, lengths, enough) for part in (found.value, found.draws))
    return bounded(
        "reach",
        ground.interval(value, draws),
        "depth",
        f"shortest context from which on the median similarity is at least {enough:g}",
        "token",
    )


# -- arrivals ------------------------------------------------------------------------------------------


def _arrivals(ground: Ground) -> dict[str, xr.Variable]:
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
    variables |= bounded(
        "half_rise",
        ground.interval(rises, draws),
        "range",
        "depth of half of an arrival curve's height",
        "block",
    )
    return variables | bounded(
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


def _per_document(ground: Ground, values: np.ndarray) -> np.ndarray:
    """Mean over the tokens of each passage that have a value [passage ...]."""
    found = np.full((ground.units, *values.shape[1:]), np.nan)
    for unit in range(ground.units):
        mine = values[ground.documents == unit]
        known = np.isfinite(mine)
        count = known.sum(axis=0)
        total = np.where(known, mine, 0.0).sum(axis=0)
        found[unit] = np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)
    return found


# -- the numbers of claims -----------------------------------------------------------------------------


def _numbers(ground: Ground) -> dict[str, xr.Variable]:
    """Early less middle depths, the last step, and five tokens against one, in plain similarity.

    Not rescaled: where the floor lies near 1 the ratio grows without bound.
    """
    settings, last = ground.settings, ground.cut.sizes["depth"] - 1

    def at(length: int) -> tuple[np.ndarray, np.ndarray]:
        found = ground.draws(ground.similarity(length))
        return found.value, found.draws

    def contrast(name: str, one: Any, other: Any, long_name: str) -> dict[str, xr.Variable]:
        (value, draws), (less, less_draws) = one, other
        return bounded(name, ground.interval(value - less, draws - less_draws), "", long_name)

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


def _pieces_as_words(result: xr.Dataset, settings: Settings) -> list[str]:
    """Said where a category of words holds mostly pieces of longer words, as where tokens are letters."""
    pieces = ("first piece", "middle piece", "last piece")
    inside = [restored(str(piece)) in pieces for piece in result.token_piece.values]
    found = []
    for category in settings.categories:
        here = [restored(str(name)) == category.name for name in result.token_category.values]
        count = int(np.logical_and(here, inside).sum())
        if category.words and 2 * count > sum(here):
            found.append(
                f"{count} of {sum(here)} tokens of the category “{category.name}” are letters or pieces inside longer "
                "words, which happen to read like such a word."
            )
    return found


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
