"""Trigger examples in sentences, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import Finding, finding, strongest
from layerscope.evidence.findings import COMPARES_NOTHING
from layerscope.experiments.trigger_examples.conclude.topics import sees_topics, topics_found

_HALVES = {
    "shared_last_token": ("share of pairs of a key's contexts that end in the same token", "point"),
    "coherence": ("likeness of a key's contexts before their last token", "1"),
    "kept_without_last": ("share of the activation that another last token leaves", "point"),
    "local": ("share of keys that need no more than 5 tokens", "point"),
    "agreement": ("share of contexts that the value's top token follows", "point"),
}
"""What is compared between halves of the model, and the unit of its difference."""
_OF_HALVES = ("halves_n_upper", "halves_n_lower")
_LAST_TOKEN: Untrained = ("effect", "a key of fresh weights is excited by the last token, too")
_BEFORE_IT: Untrained = ("effect", "attention of fresh weights mixes earlier tokens into a key's input")
_ALIKE: Untrained = ("null", "fresh weights are the same kind of random in every layer")


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """What contexts share, radius, values, composition; then layers, halves of the model, and what coherence finds."""
    yield _of_sharing(result)
    yield from _of_the_last_token(result)
    yield from _of_values(result)
    yield from _of_composition(result)
    yield from _of_layers(result)
    yield from _of_halves(result)
    yield from _of_topics(result)


def _of_topics(result: xr.Dataset) -> Iterator[Claim]:
    """What coherence finds of made topics, beside what it makes of mixed words."""
    if (sees := sees_topics(result)) is None:
        return
    found, mixed, one = (
        topics_found(result),
        topics_found(result, made="mixed words"),
        topics_found(result, words=1),
    )
    yield found.claim(
        f"Coherence finds {found.estimate} of made topics with {found.select['words']} of their words in each context, "
        f"and {mixed.estimate} of mixed words",
        caveat=f"{int(result.topics_known)} known sets of words; with one word in each context {one.estimate}"
        + ("" if sees else "; too few to report the coherence of contexts"),
    )


def _of_sharing(result: xr.Dataset) -> Claim:
    shared = finding(result, "all_shared_last_token", unit="share", units="keys")
    if not shared.known:
        return Claim(
            text="No key has two contexts that excite it.",
            stated=True,
            caveat="what contexts share needs at least two of them",
            untrained=COMPARES_NOTHING,
            select={"variable": "all_shared_last_token_n"},
        )
    chance = shared.other(float(np.nanmean(result.null_shared_last_token)))
    return shared.claim(
        f"Two contexts of a key end in the same token in {shared.estimate} of pairs, random ones in {chance}"
    )


def _of_layers(result: xr.Dataset) -> Iterator[Claim]:
    """The layers whose keys differ most from random contexts; nothing where no key has two contexts."""
    if not np.isfinite(result.all_shared_last_token):
        return
    yield from _beyond_random(
        result,
        "shared_last_token",
        "share",
        "In layer {layer} contexts of a key end in the same token {more} often than random ones",
        "excess of contexts of a key that end in the same token over random ones",
        _LAST_TOKEN,
    )
    if sees_topics(result) is not False:
        yield from _beyond_random(
            result,
            "coherence",
            "1",
            "In layer {layer} contexts of a key are {more} alike before their last token than random ones",
            "excess likeness of contexts of a key before their last token over random ones",
            _BEFORE_IT,
        )


def _beyond_random(
    result: xr.Dataset, name: str, unit: str, says: str, nothing: str, untrained: Untrained
) -> Iterator[Claim]:
    """The layer whose keys differ most from random sets of contexts."""
    null = result[f"null_{name}"].values
    chance = float(null[np.isfinite(null)].mean()) if np.isfinite(null).any() else np.nan
    most = strongest(
        result,
        f"mean_{name}",
        "layer",
        by=lambda values: np.abs(values - chance),
        p=f"p_adjusted_{name}",
        null=chance,
        unit=unit,
        units="keys",
    )
    if most.known and np.isfinite(chance):
        more = most.which("more", "less")
        yield most.claim(
            f"{says.format(layer=most.select['layer'], more=more)}: {most.estimate} against {most.other(chance)}",
            nothing=nothing,
            caveat=f"significant in {most.where}",
            untrained=untrained,
        )


def _of_the_last_token(result: xr.Dataset) -> Iterator[Claim]:
    kept = finding(result, "all_kept_without_last", unit="share", units="keys")
    if not kept.known:
        return
    positive = result.key_tail.values > 0
    radius = result.context_radius.values[positive & np.isfinite(result.context_radius.values)]
    median = f"median radius {np.median(radius):g} tokens; " if radius.size else ""
    local = finding(result, "all_local", unit="share")
    nothing = float(result.kept.sel(kept_tokens=0)[positive].mean())
    yield kept.claim(
        f"Another last token leaves {kept.estimate} of a key's activation; {local.estimate} of keys need no more than "
        "their last 5 tokens",
        caveat=f"{median}replacing every token leaves {kept.other(nothing)}",
    )


def _of_halves(result: xr.Dataset) -> Iterator[Claim]:
    for name, (what, unit) in _HALVES.items():
        gap = finding(result, "halves", unit=unit, units="keys", n=_OF_HALVES, statistic=name)
        if not gap.known or (name == "coherence" and sees_topics(result) is False):
            continue
        upper, lower = (
            replace(gap, unit="share" if unit == "point" else unit).other(
                float(result[half].sel(statistic=name))
            )
            for half in ("upper_half", "lower_half")
        )
        yield gap.claim(
            f"The {what} is {gap.size} {gap.which('higher', 'lower')} in the later half of the layers than in the "
            "earlier",
            nothing=f"difference between later and earlier layers in the {what}",
            caveat=f"{upper} against {lower}",
            untrained=_ALIKE,
        )


def _of_values(result: xr.Dataset) -> Iterator[Claim]:
    beyond = finding(result, "all_agreement_beyond_frequency", unit="point", units="keys")
    if not beyond.known:
        return
    follows = finding(result, "all_agreement", unit="share")
    yield beyond.claim(
        f"The token that a key's value promotes most follows its contexts {beyond.size} {beyond.which('more', 'less')} "
        "often than its frequency",
        nothing="difference between how often the token that a key's value promotes most follows and its frequency",
        caveat=f"it follows {follows.estimate} of contexts; among tokens of like frequency the next one ranks at "
        f"{float(result.all_next_percentile):.2f} (chance 0.5){_tuned(result)}",
        untrained=("null", "values of fresh weights promote tokens at random"),
    )


def _share(result: xr.Dataset, name: str) -> str:
    return finding(result, name, unit="share").estimate


def _tuned(result: xr.Dataset) -> str:
    """What a tuned lens says of the same, where one was given."""
    if "all_agreement_tuned" not in result:
        return ""
    return (
        f"; by tuned lens the top token follows {_share(result, 'all_agreement_tuned')} of contexts (its frequency "
        f"{_share(result, 'all_agreement_tuned_expected')}) and the next one ranks at "
        f"{float(result.all_next_percentile_tuned):.2f}"
    )


def _of_composition(result: xr.Dataset) -> Iterator[Claim]:
    found = finding(result, "all_unmatched_share", unit="share", units="passages")
    if not found.known:
        return
    fewest = _fewest_active(result)
    chance, active = (
        float(np.nanmean(result[name])) for name in ("mean_unmatched_by_chance", "mean_active_share")
    )
    yield found.claim(
        f"{found.estimate} of MLP outputs promote most a token that no single active value promotes most",
        caveat=f"with the output of another token {found.other(chance)}; {fewest.other(active)} of keys are above 0, "
        f"fewest in layer {fewest.select['layer']} ({fewest.estimate})",
    )


def _fewest_active(result: xr.Dataset) -> Finding:
    return strongest(result, "mean_active_share", "layer", by=np.negative, unit="share")
