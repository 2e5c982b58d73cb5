"""Trigger examples in sentences, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence.findings import Finding, finding, number_or_none
from layerscope.evidence.wording import ALPHA, measured

_HALVES = {
    "shared_last_token": ("share of pairs of a key's contexts that end in the same token", "point"),
    "coherence": ("likeness of a key's contexts before their last token", "1"),
    "kept_without_last": ("share of the activation that another last token leaves", "point"),
    "local": ("share of keys that need no more than 5 tokens", "point"),
    "agreement": ("share of contexts that the value's top token follows", "point"),
}
"""What is compared between halves of the model, and the unit of its difference."""


def claims(result: xr.Dataset) -> list[Claim]:
    """What contexts share beyond chance, radius, halves of the model, values, composition."""
    return [
        *_claim_of_topics(result),
        *_claim_of_sharing(result),
        *_claim_of_the_last_token(result),
        *_claims_of_halves(result),
        *_claim_of_values(result),
        *_claim_of_composition(result),
    ]


def _significant_layers(result: xr.Dataset, name: str) -> tuple[int, int]:
    """Layers whose keys differ from random contexts, and layers with a p at all."""
    p = result[f"p_adjusted_{name}"].values
    return int((p < ALPHA).sum()), int((~np.isnan(p)).sum())


def _topics(result: xr.Dataset, *, made: str = "one topic", words: int | None = None) -> Finding:
    """What coherence finds of made sets, by default of topics with the most words written into each context."""
    number = int(result.words.max()) if words is None else words
    return finding(result, "topics_found", unit="share", made=made, words=number)


def sees_topics(result: xr.Dataset) -> bool | None:
    """Whether coherence finds enough of the made topics; None where that is unknown."""
    if "topics_found" not in result or not (found := _topics(result)).known:
        return None
    return found.value >= float(result.attrs.get("least_power", 0.5))


def _claim_of_topics(result: xr.Dataset) -> Iterator[Claim]:
    """What coherence finds of made topics, beside what it makes of mixed words."""
    if (sees := sees_topics(result)) is None:
        return
    found, mixed, one = _topics(result), _topics(result, made="mixed words"), _topics(result, words=1)
    yield found.claim(
        f"Coherence finds {found.estimate} of made topics with {found.select['words']} of their words in each context, "
        f"and {mixed.estimate} of mixed words",
        caveat=f"mean over {int(result.topics_known)} known sets of words, written into random contexts; with one "
        f"word in each context {one.estimate}"
        + ("" if sees else "; too few to report the coherence of contexts"),
    )


def _claim_of_sharing(result: xr.Dataset) -> Iterator[Claim]:
    found = finding(result, "all_shared_last_token", unit="share", units="keys")
    if not found.known:
        yield Claim(
            text="No key has two contexts that excite it",
            caveat="what contexts share needs at least two of them",
            select={"variable": "all_shared_last_token_n"},
        )
        return
    layers, known = _significant_layers(result, "shared_last_token")
    coherent, _ = _significant_layers(result, "coherence")
    alike = (
        ""
        if sees_topics(result) is False
        else f"; alike in their other tokens beyond random sets in {coherent}"
    )
    said = found.claim(
        f"Two contexts of a key end in the same token in {found.estimate} of pairs, random ones in "
        f"{measured(float(np.nanmean(result.null_shared_last_token)), 'share')}",
        caveat=f"mean over {found.n[0]} keys; more than random sets in {layers} of {known} layers (permutation over "
        f"keys, Holm over layers){alike}",
    )
    yield said.model_copy(update={"significant": layers > 0})


def _claim_of_the_last_token(result: xr.Dataset) -> Iterator[Claim]:
    found = finding(result, "all_kept_without_last", unit="share", units="keys")
    if not found.known:
        return
    radius = result.context_radius.values[result.key_tail.values > 0]
    radius = radius[~np.isnan(radius)]
    local = finding(result, "all_local", unit="share")
    nothing = float(result.kept.sel(kept_tokens=0)[result.key_tail.values > 0].mean())
    yield found.claim(
        f"Another last token leaves {found.estimate} of a key's activation; {local.estimate} of keys need no more than "
        "their last 5 tokens",
        caveat=f"mean over {found.n[0]} keys; replacing every token leaves {found.other(nothing)}; median radius "
        f"{np.median(radius) if radius.size else np.nan:g} tokens; top contexts fall back by selection alone",
    )


def _claims_of_halves(result: xr.Dataset) -> Iterator[Claim]:
    for name, (what, unit) in _HALVES.items():
        found = finding(result, "halves", unit=unit, units="keys", statistic=name)
        if not found.known or (name == "coherence" and sees_topics(result) is False):
            continue
        here = result.sel(statistic=name)
        means = [measured(float(here[half]), "share" if unit == "point" else unit) for half in _MEANS]
        yield found.claim(
            f"The {what} is {found.which('higher', 'lower')} in the upper half of the layers than in the lower, by "
            f"{found.size}",
            nothing=f"difference between the halves of the layers in the {what}",
            caveat=f"{' against '.join(means)}, means over keys; p by permutation of keys between the halves, Holm "
            "over five such comparisons",
        )


_MEANS = ("upper_half", "lower_half")


def _claim_of_values(result: xr.Dataset) -> Iterator[Claim]:
    found = finding(result, "all_agreement_beyond_frequency", unit="point", units="keys")
    if not found.known:
        return
    yield found.claim(
        f"The token that a key's value raises most follows its contexts {found.which('more', 'less')} often than its "
        f"frequency, by {found.size}",
        nothing="difference between how often the token that a key's value raises most follows and its frequency",
        caveat=f"mean over {found.n[0]} keys; it follows {measured(float(result.all_agreement), 'share')} of contexts, "
        f"of the top context alone {measured(float(result.all_agreement_of_top), 'share')}; among tokens of like "
        f"frequency the next one ranks at {float(result.all_next_percentile):.2f} (chance 0.5); read through final "
        f"norm and unembedding{_tuned(result)}",
    )


def _tuned(result: xr.Dataset) -> str:
    """What a tuned lens says of the same, where one was given."""
    if "all_agreement_tuned" not in result:
        return ""
    share, expected = float(result.all_agreement_tuned), float(result.all_agreement_tuned_expected)
    return (
        f"; through the tuned lens the top token follows {share:.1%} of contexts (its frequency {expected:.1%}) and "
        f"the next one ranks at {float(result.all_next_percentile_tuned):.2f}"
    )


def _claim_of_composition(result: xr.Dataset) -> Iterator[Claim]:
    value = float(result.all_unmatched_share)
    if np.isnan(value):
        return
    fewest = int(result.layer[int(np.nanargmin(result.mean_active_share.values))])
    yield Claim(
        text=f"{value:.0%} of a layer's outputs say a token that no single active value says",
        value=value,
        low=number_or_none(result.all_unmatched_share_low),
        high=number_or_none(result.all_unmatched_share_high),
        caveat=f"mean over layers, interval over {int(result.all_unmatched_share_n)} passages; with the output of "
        f"another token {float(np.nanmean(result.mean_unmatched_by_chance)):.0%}; "
        f"{float(np.nanmean(result.mean_active_share)):.0%} of keys are above 0 at a token, fewest in layer {fewest} "
        f"({float(result.mean_active_share.sel(layer=fewest)):.0%})",
        select={"variable": "all_unmatched_share"},
    )
