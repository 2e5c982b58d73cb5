"""What truncated_context says in sentences: what its post claimed, what its critic answered, floor and prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import Finding, finding, strongest
from layerscope.experiments.truncated_context.conclude.categories import (
    base_category,
    said_of,
)
from layerscope.results.escaping import restored

_MIXING: Untrained = ("effect", "mixing at random already makes similarities fall with depth")
_COSINE = "in cosine similarity"


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """Sentences, each with the cells that it rests on."""
    local = int(result.attrs["local"])
    if np.isfinite(result.median_similarity.sel(context_length=local).isel(depth=slice(1, None))).any():
        yield _local(result, local)
    yield _reach(result)
    yield _early(result, local)
    yield _recent(result, max(1, local // 2))
    yield _last_step(result, local)
    yield _half_rise(result)
    if np.isfinite(result.category_difference).any():
        yield _category(result, local)
    yield _sinks(result)
    if "mean_prefix_similarity" in result and np.isfinite(result.mean_prefix_similarity).any():
        yield _prefix(result)


def _local(result: xr.Dataset, local: int) -> Claim:
    least = strongest(
        result.isel(depth=slice(1, None)),
        "median_similarity",
        over="depth",
        by=np.negative,
        context_length=local,
    )
    here = {"context_length": local, "depth": least.select["depth"]}
    floor = float(result.median_floor.sel(depth=here["depth"]))
    share = finding(result, "explained", unit="share", **here)
    beside = "" if np.isnan(floor) else f"; the token alone behind another text {least.other(floor)}"
    return least.claim(
        f"keeping only the last {local} tokens preserves a state least at depth {here['depth']}: cosine similarity "
        f"{least.estimate}",
        caveat=f"{share.estimate} of the norm{beside}",
    )


def _reach(result: xr.Dataset) -> Claim:
    """How far back a state reaches at a fifth and at the middle of depth: the later one is the claim."""
    last = result.sizes["depth"] - 1
    early = max(1, last // 5)
    middle = min(last, max(early + 1, last // 2))
    before, here = (finding(result, "reach", unit="token", depth=depth) for depth in (early, middle))
    enough = result.attrs["enough"]
    longest = int(result.attrs["longest"]) if "longest" in result.attrs else None
    if longest is None:  # a result of an older version
        longest = int(result.kept_tokens[np.isfinite(result.similarity).any(["token", "depth"])].max())
    return here.claim(
        f"a state is preserved (cosine similarity ≥ {enough:g}) by {_tokens(before, longest)} at depth {early} and by "
        f"{_tokens(here, longest)} at depth {middle}",
        caveat="medians over tokens",
    )


def _tokens(reach: Finding, longest: int) -> str:
    if not reach.known:
        return f"more than the last {longest} tokens"
    return f"the last {reach.value:.0f} tokens" if reach.value > 1 else "the token alone"


def _compared(
    result: xr.Dataset,
    name: str,
    says: Callable[[Finding], str],
    *,
    nothing: str,
    caveat: str,
    unknown: str = "no token has so much context",
    untrained: Untrained = _MIXING,
) -> Claim:
    """A difference, in either direction, of what mixing at random changes too."""
    gap = finding(result, name)
    return gap.claim(says(gap), nothing=nothing, unknown=unknown, caveat=caveat, untrained=untrained)


def _early(result: xr.Dataset, local: int) -> Claim:
    kept = f"keeping only the last {local} tokens"
    return _compared(
        result,
        "early_less_middle",
        lambda gap: (
            f"{kept} preserves early layers {gap.which('better', 'worse')} than middle ones, by {gap.size} {_COSINE}"
        ),
        nothing=f"difference between early and middle layers in what {kept} preserves",
        caveat="amplification in place alone could bring this about",
    )


def _recent(result: xr.Dataset, half: int) -> Claim:
    return _compared(
        result,
        "recent_tokens",
        lambda gain: (
            f"after the first layer the last {half} tokens preserve a state {gain.which('better', 'worse')} than the "
            f"token alone, by {gain.size} {_COSINE}"
        ),
        nothing=f"difference between the last {half} tokens and the token alone after the first layer",
        caveat="better means that the first layer reads its neighbours",
        untrained=("effect", "random attention reads its neighbours too"),
    )


def _last_step(result: xr.Dataset, local: int) -> Claim:
    return _compared(
        result,
        "last_step",
        lambda step: (
            f"the last layer brings a state {step.which('nearer to', 'farther from')} what the last {local} tokens "
            f"alone give, by {step.size} {_COSINE}"
        ),
        nothing=f"change in the last layer of what the last {local} tokens preserve",
        caveat="the post found a rise there",
    )


def _half_rise(result: xr.Dataset) -> Claim:
    ranges = [_context(restored(str(name))) for name in result["range"].values]
    near, far = ranges[0], ranges[max(0, len(ranges) - 2)]
    return _compared(
        result,
        "half_rise_difference",
        lambda gap: f"{far} has half of its effect {gap.size} {gap.which('later', 'earlier')} than {near}",
        nothing=f"difference in depth between the effects of {far} and {near}",
        unknown="no token climbs the ladder",
        caveat="states also move with work in place",
    )


def _context(name: str) -> str:
    """ "10 to 32 tokens" as sentences say it: context 10-32 tokens back."""
    return f"context {name.removesuffix(' tokens').replace(' to ', '-')} tokens back"


def _category(result: xr.Dataset, local: int) -> Claim:
    base = base_category([str(name) for name in result.category.values])
    others = result.sel(category=[name for name in result.category.values if str(name) != base])
    if not others.sizes["category"]:
        others = result
    found = strongest(others, "category_difference", over="category", by=np.abs, p="category_p_adjusted")
    name = str(found.select["category"])
    tokens, passages = (int(result[f"category_{of}"].sel(category=name)) for of in ("tokens", "passages"))
    kinds = f"“{name}” and {said_of(base)}"
    return found.claim(
        f"after the first layer the last {local} tokens preserve “{name}” {found.which('better', 'worse')} than "
        f"{said_of(base)}, by {found.size} {_COSINE}",
        nothing=f"difference between {kinds} in what the last {local} tokens preserve",
        caveat=f"{tokens} tokens in {passages} passages, positions matched",
        untrained=("effect", "frequent tokens have embeddings of their own length"),
    )


def _sinks(result: xr.Dataset) -> Claim:
    total, sinks = int(result.sizes["token"]), int(result.sink.sum())
    return Finding(float(sinks), unit="token", select={"variable": "sink"}).claim(
        f"{sinks} of {total} target tokens have states more than ten times as long as the median (attention sinks)",
        caveat="in the full text, at any depth",
    )


def _prefix(result: xr.Dataset) -> Claim:
    depth = max(1, result.sizes["depth"] // 5)
    without, alone = (
        finding(result, f"mean_{kind}_similarity", depth=depth) for kind in ("prefix", "last_token")
    )
    return without.claim(
        f"at depth {depth} the last state of a name keeps a cosine similarity of {without.estimate} without "
        f"“{result.attrs['prefix']}” before it, and of {without.other(alone.value)} without all but its last token",
        caveat=f"mean over {int(result.sizes['name'])} names",
    )
