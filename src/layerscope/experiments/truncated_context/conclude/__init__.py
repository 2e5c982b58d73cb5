"""From kept similarities to medians, bands, categories, arrivals and the numbers that claims rest on."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import Over, Resampled, along, cell_by_cell, measure, named, number_coordinate
from layerscope.evidence.distances import cautions_of_unread
from layerscope.experiments.truncated_context.conclude.categories import categories
from layerscope.experiments.truncated_context.settings import Settings
from layerscope.maths.depth_profile import apart, half_rise
from layerscope.maths.quantiles import weighted_quantiles
from layerscope.maths.reach import shortest_enough, spread_lengths
from layerscope.maths.recovery import between_floor_and_ceiling
from layerscope.results.escaping import restored
from layerscope.results.schema import write_json

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)  # from the lowest token to the highest
_MOST_LENGTHS = 24


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Medians, bands, categories, arrivals and the prefix test, from the kept similarities."""
    cut, prefix = stages["cut"], stages["prefix"]
    over = Over(cut, settings, rows="token_passage")
    parts = [
        _medians(cut, over, shown_lengths(cut, settings)),
        _bands(cut),
        _reach(cut, over, settings),
        categories(cut, over, settings),
        _arrivals(cut, over),
        _numbers(cut, over, settings),
        *([_prefix(prefix, settings)] if prefix.sizes else []),
    ]
    result = cut.merge(xr.merge(parts)).assign_attrs(
        local=settings.local,
        prefix=settings.prefix,
        passages=over.n,
        instead=settings.instead,
        enough=settings.enough,
        longest=max(_measured(cut), default=0),
    )
    return write_json(result, cautions=[*_cautions(result), *_pieces_as_words(result, settings)])


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """Median similarity with the local context, and how far back a state reaches."""
    local = int(result.attrs["local"])
    return {
        "preserved": measure(
            result,
            "median_similarity",
            label=f"state preserved by {local} tokens",
            sense=f"keeping only the last {local} tokens leaves the state nearly as it was",
            questions="context",
            null=result.median_floor,
            context_length=local,
        ),
        "reach": measure(
            result,
            "reach",
            label="context that preserves a state",
            sense="a state needs many tokens back to be preserved",
            questions="context",
        ),
    }


def shown_lengths(cut: xr.Dataset, settings: Settings) -> list[int]:
    """The context lengths that get intervals: 1, half the local one, the local one, and the ladder's."""
    known = set(cut.kept_tokens.to_numpy().tolist())
    there = set(_measured(cut))
    last = {k for k in known if k > settings.every}
    return sorted(
        {1, max(1, settings.local // 2), settings.local, *last} & known & (there | {settings.local})
    )


def _measured(cut: xr.Dataset) -> list[int]:
    """Context lengths at which anything was measured."""
    some = np.isfinite(cut.similarity).any(["token", "depth"])
    return [int(length) for length in cut.kept_tokens[some]]


def _medians(cut: xr.Dataset, over: Over, shown: list[int]) -> xr.Dataset:
    values = cut.similarity.sel(kept_tokens=shown).rename(kept_tokens="context_length")
    values = values.assign_coords(
        context_length=number_coordinate(shown, "context_length", "context kept [tokens]")
    )
    median = over.medians(named(values, "median_similarity", "median similarity with the whole context"))
    floor = over.medians(
        named(cut.floor, "median_floor", "median similarity when only the token itself is the same")
    )
    ceiling = over.medians(
        named(cut.ceiling, "median_ceiling", "median similarity of the full run at moved positions")
    )
    explained = named(values**2, "explained", "median share of norm explained (squared cosine)")
    shifted = bool(cut.shifted.any()) and bool(np.isfinite(cut.ceiling).any())
    same = (
        ceiling if shifted else floor.map(xr.ones_like)
    )  # without moved positions, all the same is a similarity of 1
    scaled = Resampled(
        cell_by_cell(between_floor_and_ceiling, median.value, floor.value, same.value),
        cell_by_cell(between_floor_and_ceiling, median.draws, floor.draws, same.draws),
        median.n,
    ).named("rescaled_similarity", "median similarity between floor (0) and ceiling (1)")
    return xr.merge(
        [
            over.quantity(median, together="depth", draws=True),
            over.quantity(scaled),
            over.quantity(floor),
            over.quantity(ceiling),
            over.quantity(over.medians(explained)),
        ]
    )


def _bands(cut: xr.Dataset) -> xr.Dataset:
    found = weighted_quantiles(cut.similarity.to_numpy(), np.ones(cut.sizes["token"]), QUANTILES)
    counts = np.isfinite(cut.similarity).any("depth").sum("token")
    quantiles = named(
        found,
        "similarity_quantile",
        "similarity, quantile over tokens",
        dims=("quantile", "kept_tokens", "depth"),
    )
    levels = xr.Variable(("quantile",), np.array(QUANTILES), {"long_name": "quantile over tokens"})
    return xr.merge(
        [
            quantiles.to_dataset().assign_coords(quantile=levels),
            named(counts, "tokens_cut", "tokens measured at this context length"),
        ]
    )


def _reach(cut: xr.Dataset, over: Over, settings: Settings) -> xr.Dataset:
    """How many of its last tokens preserve a state, by depth: from there on the median similarity is high enough."""
    lengths, enough = spread_lengths(_measured(cut), _MOST_LENGTHS), settings.enough
    found = over.medians(cut.similarity.sel(kept_tokens=lengths))
    reach = found.map(
        lambda median: along("kept_tokens", lambda rows: shortest_enough(rows, lengths, enough), median)
    ).named("reach", f"shortest context from which on the median similarity is at least {enough:g}", "token")
    return over.quantity(reach, draws=True)


def _arrivals(cut: xr.Dataset, over: Over) -> xr.Dataset:
    """Mean arrival curves over passages, and where the nearest and the last closed range reach half their height."""
    curves = named(cut.arrival, "mean_arrival", "change of the state, over the full one's length")
    rises = over.means(curves).map(lambda means: along("depth", half_rise, means))
    rises = rises.named("half_rise", "depth of half of an arrival curve's height", "layer")
    far, near = max(0, cut.sizes["range"] - 2), 0
    gap = rises.map(
        lambda rise: cell_by_cell(apart, rise.isel(range=far, drop=True), rise.isel(range=near, drop=True))
    ).named("half_rise_difference", "half-rise of the far range less that of the near one", "layer")
    return xr.merge([over.mean(curves), over.quantity(rises), over.quantity(gap)])


def _numbers(cut: xr.Dataset, over: Over, settings: Settings) -> xr.Dataset:
    """Early less middle depths, the last step, and five tokens against one, in plain similarity.

    Not rescaled: where the floor lies near 1 the ratio grows without bound.
    """
    last = cut.sizes["depth"] - 1
    early, middle = slice(1, 1 + max(1, last // 5)), slice(max(1, 2 * last // 5), max(2, 1 + 4 * last // 5))
    some = [k for k in (max(1, settings.local // 2), 1) if k in cut.kept_tokens]

    def at(length: int) -> Resampled:
        return over.medians(cut.similarity.sel(kept_tokens=length))

    def mean_of(found: Resampled, depths: slice) -> Resampled:
        return found.map(lambda curve: curve.isel(depth=depths).mean("depth"))

    def one_of(found: Resampled, depth: int) -> Resampled:
        return found.map(lambda curve: curve.isel(depth=depth, drop=True))

    kept = at(settings.local)
    contrasts = (
        (
            mean_of(kept, early) - mean_of(kept, middle),
            "early_less_middle",
            "median similarity with local context, first fifth of depth less middle",
        ),
        (
            one_of(kept, last) - one_of(kept, last - 1),
            "last_step",
            "median similarity with local context, last depth less the one before",
        ),
        (
            one_of(at(some[0]), 1) - one_of(at(some[-1]), 1),
            "recent_tokens",
            "median similarity after the first layer, half the local context less the token alone",
        ),
    )
    return xr.merge([over.quantity(found.named(name, long_name)) for found, name, long_name in contrasts])


def _prefix(prefix: xr.Dataset, settings: Settings) -> xr.Dataset:
    over = Over(prefix, settings, rows="name")
    means = [
        over.mean(named(prefix[name], f"mean_{name}", f"{prefix[name].long_name}, mean"))
        for name in ("prefix_similarity", "last_token_similarity")
    ]
    return xr.merge([prefix, *means])


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
