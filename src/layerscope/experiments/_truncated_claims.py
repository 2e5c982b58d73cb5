"""What truncated_context says in sentences."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.experiments._contract import Claim
from layerscope.experiments._distances import NOT_OWED_TO_TRAINING
from layerscope.experiments._summaries import number_or_none
from layerscope.experiments._truncated_categories import FEWEST_PASSAGES, base_category, said_of
from layerscope.plots.numbers import number
from layerscope.results.words import restored

_IN_PLACE = (
    "an input missing early is amplified by later work in place: this alone does not tell reading from relaying "
    f"(context_reading does); {NOT_OWED_TO_TRAINING}"
)


def claims(result: xr.Dataset) -> list[Claim]:
    """Sentences, each with the cells that it rests on."""
    local = int(result.attrs["local"])
    half = max(1, local // 2)
    found = [
        _local(result, local),
        _reach(result),
        _compared(
            result,
            "early_less_middle",
            f"with the last {local} tokens, the first fifth of depth is",
            "more decided by them than the middle",
            "less decided by them than the middle",
            _IN_PLACE,
        ),
        _compared(
            result,
            "recent_tokens",
            f"after the first block the last {half} tokens decide",
            "more than the token alone",
            "less than the token alone",
            "a difference above 0 means that the first block reads its neighbours",
        ),
        _compared(
            result,
            "last_step",
            "at the last depth the state is",
            "nearer to its local version than one block before",
            "farther from its local version than one block before",
            "the post found an uptick there",
        ),
        _half_rise(result),
        _category(result, local),
        _sinks(result),
    ]
    if "mean_prefix_similarity" in result:
        found.append(_prefix(result))
    return [claim for claim in found if claim is not None]


def _local(result: xr.Dataset, local: int) -> Claim | None:
    curve = result.median_similarity.sel(context_length=local)
    if np.isnan(curve.values[1:]).all():
        return None
    lowest = int(curve.depth[1:][np.nanargmin(curve.values[1:])])
    cell = {"context_length": local, "depth": lowest}
    value, low, high = (float(result[f"median_similarity{end}"].sel(cell)) for end in ("", "_low", "_high"))
    floor = float(result.median_floor.sel(depth=lowest))
    explained = float(result.explained.sel(cell))
    beside = "" if np.isnan(floor) else f"; the floor there is {floor:.2f}"
    return Claim(
        text=f"the last {local} tokens decide a state least at depth {lowest}: similarity {number(value)}, "
        f"{explained:.0%} of the norm",
        value=value,
        low=number_or_none(low),
        high=number_or_none(high),
        caveat=f"median over tokens, interval over {result.attrs['passages']} passages{beside}; the depth "
        "was chosen as the lowest",
        select={"variable": "median_similarity", **cell},
    )


def _reach(result: xr.Dataset) -> Claim | None:
    """How far back a state reaches at a fifth and at the middle of depth: the deeper one is the claim."""
    last = result.sizes["depth"] - 1
    early = max(1, last // 5)
    middle = min(last, max(early + 1, last // 2))
    value, low, high = (float(result[f"reach{end}"].sel(depth=middle)) for end in ("", "_low", "_high"))
    before = float(result.reach.sel(depth=early))
    longest = int(result.kept_tokens.values[np.isfinite(result.similarity.values).any(axis=(0, 2))][-1])

    def tokens(count: float) -> str:
        return (
            f"more than its last {longest} tokens"
            if np.isnan(count)
            else (f"its last {count:.0f} tokens" if count > 1 else "the token alone")
        )

    return Claim(
        text=f"what decides a state is {tokens(before)} at depth {early}, and {tokens(value)} at depth {middle}"
        if tokens(before) != tokens(value)
        else f"what decides a state is {tokens(value)}, at depth {early} and at depth {middle}",
        value=number_or_none(value),
        low=number_or_none(low),
        high=number_or_none(high),
        caveat="the shortest context measured from which on the median similarity is at least "
        f"{result.attrs['enough']:g}; interval over {result.attrs['passages']} passages",
        select={"variable": "reach", "depth": middle},
    )


def _compared(result: xr.Dataset, name: str, begin: str, above: str, below: str, caveat: str) -> Claim | None:
    value, low, high = (float(result[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if np.isnan(value):
        return None
    told = bool(low > 0 or high < 0)
    said = (above if value > 0 else below) if told else f"not distinguishably {above}"
    return Claim(
        text=f"{begin} {said} (by {number(value)})",
        value=value,
        low=number_or_none(low),
        high=number_or_none(high),
        significant=told,
        caveat=f"difference of median similarities, interval over {result.attrs['passages']} passages; {caveat}",
        select={"variable": name},
    )


def _half_rise(result: xr.Dataset) -> Claim | None:
    value, low, high = (float(result[f"half_rise_difference{end}"]) for end in ("", "_low", "_high"))
    if np.isnan(value):
        return None
    ranges = [restored(str(name)) for name in result["range"].values]
    near, far = ranges[0], ranges[max(0, len(ranges) - 2)]
    told = bool(low > 0 or high < 0)
    order = ("later" if value > 0 else "earlier") if told else "not distinguishably at another depth"
    return Claim(
        text=f"what stands {far} back is felt {order} than what stands {near} back "
        f"(half-rise, by {number(value)} blocks)",
        value=value,
        low=number_or_none(low),
        high=number_or_none(high),
        significant=told,
        caveat=f"secondary index: arrival curves grow with later work in place too; the critic of the post expects 0, "
        f"its authors more than 0; interval over {result.attrs['passages']} passages; {NOT_OWED_TO_TRAINING}",
        select={"variable": "half_rise_difference"},
    )


def _category(result: xr.Dataset, local: int) -> Claim | None:
    values, all_p = result.category_difference.values, result.category_p_adjusted.values
    base = base_category([str(name) for name in result.category.values])
    known, p_known = np.isfinite(values) & (result.category.values != base), np.isfinite(all_p)
    # Of those told apart; if there are none, of those that could be; if none could, of all.
    places = next(
        (np.flatnonzero(some) for some in (known & (all_p < 0.05), known & p_known, known) if some.any()),
        None,
    )
    if places is None:
        return None
    place = int(places[np.argmin(values[places])])
    name = str(result.category.values[place])
    low, high = (float(result[f"category_difference{end}"][place]) for end in ("_low", "_high"))
    p = float(result.category_p_adjusted[place])
    told = p < 0.05
    count, passages = int(result.category_tokens[place]), int(result.category_passages[place])
    return Claim(
        text=f"after the first block “{name}” is {'' if told else 'not distinguishably '}"
        f"{'less' if values[place] <= 0 else 'more'} decided by the last "
        f"{local} tokens than {said_of(base)} (by {number(abs(values[place]))})",
        value=float(values[place]),
        low=number_or_none(low),
        high=number_or_none(high),
        p_adjusted=number_or_none(p),
        significant=told,
        caveat=f"the lowest of {'those told apart among ' if told else ''}{values.size} categories, {count} tokens in "
        f"{passages} passages; "
        + (
            "p by Holm's method over all of them; positions matched"
            if p_known.any()
            else f"no category is held by {FEWEST_PASSAGES} passages, so that none could be told apart"
        ),
        select={"variable": "category_difference", "category": name},
    )


def _sinks(result: xr.Dataset) -> Claim:
    total, sinks = int(result.sizes["token"]), int(result.sink.sum())
    return Claim(
        text=f"{sinks} of {total} target tokens act as sinks in the full text",
        value=float(sinks),
        caveat="states more than ten times as long as the median of their text and depth; categories are shown with "
        "and without tokens that are sinks in the full or the cut run",
        select={"variable": "sink"},
    )


def _prefix(result: xr.Dataset) -> Claim | None:
    curve = result.mean_prefix_similarity
    if np.isnan(curve.values[1:]).all():
        return None
    depth = max(1, result.sizes["depth"] // 5)
    value, low, high = (
        float(result[f"mean_prefix_similarity{end}"].sel(depth=depth)) for end in ("", "_low", "_high")
    )
    alone, names = float(result.mean_last_token_similarity.sel(depth=depth)), int(result.sizes["name"])
    return Claim(
        text=f"at depth {depth} the state at the end of a name keeps a similarity of {alone:.2f} when the rest of the "
        f"name is taken away, and of {number(value)} when only “{result.attrs['prefix']}” before it is",
        value=value,
        low=number_or_none(low),
        high=number_or_none(high),
        caveat=f"mean over {names} name{'s' if names > 1 else ''}, at a fifth of the model's depth",
        select={"variable": "mean_prefix_similarity", "depth": depth},
    )
