"""Trigger examples in sentences, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence.findings import number_or_none

_ALPHA = 0.05

_HALVES = {
    "shared_last_token": ("contexts of a key end in the same token", "more often", "less often"),
    "coherence": ("contexts of a key are alike before their last token", "more", "less"),
    "kept_without_last": ("activation survives another last token", "more", "less"),
    "local": ("keys need no more than 5 tokens", "more often", "less often"),
    "agreement": ("the token that follows is the value's top token", "more often", "less often"),
}


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


def _told_apart(result: xr.Dataset, name: str) -> tuple[int, int]:
    """Layers whose keys differ from random contexts, and layers with a p at all."""
    p = result[f"p_adjusted_{name}"].values
    return int((p < _ALPHA).sum()), int((~np.isnan(p)).sum())


def sees_topics(result: xr.Dataset) -> bool | None:
    """Whether coherence finds enough of the made topics with four words in each context; None where that is unknown."""
    if "topics_found" not in result:
        return None
    found = float(result.topics_found.sel(made="one topic", words=4))
    return None if np.isnan(found) else found >= float(result.attrs.get("least_power", 0.5))


def _claim_of_topics(result: xr.Dataset) -> Iterator[Claim]:
    """What coherence finds of made topics, beside what it makes of mixed words."""
    if sees_topics(result) is None:
        return
    here = result.sel(made="one topic", words=4)
    fewer = result.topics_found.sel(made="one topic", words=1)
    mixed = result.topics_found.sel(made="mixed words", words=4)
    yield Claim(
        text=f"Coherence finds {float(here.topics_found):.0%} of made topics with 4 of their words in each context, "
        f"and {float(mixed):.0%} of mixed words"
        + ("" if sees_topics(result) else ": too few to report the coherence of contexts"),
        value=float(here.topics_found),
        low=number_or_none(here.topics_found_low),
        high=number_or_none(here.topics_found_high),
        caveat=f"mean over {int(result.topics_known)} known sets of words, written into random contexts; with one "
        f"word in each context {float(fewer):.0%}",
        select={"variable": "topics_found", "made": "one topic", "words": 4},
    )


def _claim_of_sharing(result: xr.Dataset) -> Iterator[Claim]:
    value = float(result.all_shared_last_token)
    if np.isnan(value):
        yield Claim(
            text="no key has two contexts that excite it",
            caveat="what contexts share needs at least two of them",
            select={"variable": "all_shared_last_token_n"},
        )
        return
    chance = float(np.nanmean(result.null_shared_last_token))
    layers, known = _told_apart(result, "shared_last_token")
    coherent, _ = _told_apart(result, "coherence")
    yield Claim(
        text=f"two contexts of a key end in the same token in {value:.0%} of pairs, random ones in {chance:.1%}",
        value=value,
        low=number_or_none(result.all_shared_last_token_low),
        high=number_or_none(result.all_shared_last_token_high),
        significant=layers > 0,
        caveat=f"mean over {int(result.all_shared_last_token_n)} keys; more than random sets in {layers} of {known} "
        "layers (permutation over keys, Holm over layers)"
        + (
            ""
            if sees_topics(result) is False
            else f"; alike in their other tokens beyond random sets in {coherent}"
        ),
        select={"variable": "all_shared_last_token"},
    )


def _claim_of_the_last_token(result: xr.Dataset) -> Iterator[Claim]:
    value = float(result.all_kept_without_last)
    if np.isnan(value):
        return
    radius = result.context_radius.values[result.key_tail.values > 0]
    radius = radius[~np.isnan(radius)]
    local = float(result.all_local)
    nothing = float(result.kept.sel(kept_tokens=0)[result.key_tail.values > 0].mean())
    yield Claim(
        text=f"another last token leaves {_percent(value)} of a key's activation; {local:.0%} of keys need no more "
        "than their last 5 tokens",
        value=value,
        low=number_or_none(result.all_kept_without_last_low),
        high=number_or_none(result.all_kept_without_last_high),
        caveat=f"mean over {int(result.all_kept_without_last_n)} keys; replacing every token leaves "
        f"{_percent(nothing)}; median radius {np.median(radius) if radius.size else np.nan:g} tokens; "
        "top contexts fall back by selection alone",
        select={"variable": "all_kept_without_last"},
    )


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("-", "−")


def _claims_of_halves(result: xr.Dataset) -> Iterator[Claim]:
    for name, (what, more, less) in _HALVES.items():
        here = result.sel(statistic=name)
        difference, p = float(here.halves), number_or_none(here.halves_p_adjusted)
        if np.isnan(difference) or (name == "coherence" and sees_topics(result) is False):
            continue
        told = p is not None and p < _ALPHA
        said = f"in the upper half of the layers {what} {more if difference > 0 else less} than in the lower half"
        yield Claim(
            text=said if told else f"{what}: the halves of the model cannot be told apart",
            value=difference,
            low=number_or_none(here.halves_low),
            high=number_or_none(here.halves_high),
            p_adjusted=p,
            significant=told,
            caveat=f"{float(here.upper_half):.3g} against {float(here.lower_half):.3g}, means over keys; p by "
            "permutation of keys between the halves, Holm over five such comparisons",
            select={"variable": "halves", "statistic": name},
        )


def _claim_of_values(result: xr.Dataset) -> Iterator[Claim]:
    value = float(result.all_agreement_beyond_frequency)
    if np.isnan(value):
        return
    low, high = (number_or_none(result[f"all_agreement_beyond_frequency_{end}"]) for end in ("low", "high"))
    yield Claim(
        text=f"the token that a key's value raises most follows {float(result.all_agreement):.1%} of its contexts, "
        f"{f'{value:+.1%}'.replace('-', '−')} beyond its frequency",
        value=value,
        low=low,
        high=high,
        significant=low is not None and high is not None and not low <= 0 <= high,
        caveat=f"mean over {int(result.all_agreement_beyond_frequency_n)} keys; among tokens of like frequency the "
        f"next one ranks at {float(result.all_next_percentile):.2f} (chance 0.5); of the top context alone "
        f"{float(result.all_agreement_of_top):.1%}; read through final norm and unembedding{_tuned(result)}",
        select={"variable": "all_agreement_beyond_frequency"},
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
