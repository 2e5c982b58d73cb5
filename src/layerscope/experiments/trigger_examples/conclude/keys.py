"""From the contexts of keys to numbers of keys, and the same numbers of random sets of contexts."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.experiments.trigger_examples.settings import Settings
from layerscope.maths.ratios import known_mean, share
from layerscope.maths.shallowness import coherence, context_radius, pair_agreement, rarity, weighted_bags
from layerscope.results.schema import quantity

SHARED = {
    "shared_last_token": "share of pairs of contexts that end in the same token",
    "shared_bigram": "share of pairs of contexts that end in the same two tokens",
    "shared_trigram": "share of pairs of contexts that end in the same three tokens",
    "coherence": "likeness of contexts without their last token (cosine of rare tokens)",
}
OF_KEYS = SHARED | {
    "kept_in_window": "share of the activation that the window alone keeps",
    "kept_without_last": "share of the activation kept when the last token is replaced",
    "local": "share of keys whose radius is at most 5 tokens",
    "agreement": "share of contexts whose next token is the one that the value raises most",
    "agreement_of_top": "share of keys whose top context is followed by the token that the value raises most",
    "next_percentile": "rank of the next token among tokens of like frequency, by the value",
}
"""Numbers of a key, whose mean over the keys of a layer is shown."""

TUNED = {
    "agreement_tuned": "share of contexts whose next token is the one that the value raises most, tuned lens",
    "agreement_tuned_expected": "frequency of the token that the value raises most, tuned lens",
    "next_percentile_tuned": "rank of the next token among tokens of like frequency, by the value, tuned lens",
}
"""Numbers of a key where a tuned lens was given."""


def numbers_shown(settings: Settings) -> dict[str, str]:
    """Numbers of a key by name, and what they are."""
    return OF_KEYS | (TUNED if settings.tuned else {})


LOCAL = 5
"""The radius, in tokens, up to which a key counts as local."""


def key_numbers(search: xr.Dataset, contexts: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Every number of every key and tail, from its own contexts."""
    weights = rarity(search.random_ids.values[:, :-1], search.sizes["token_id"])
    rows = [_numbers_of(search, contexts, row, weights, settings) for row in range(search.sizes["key"])]
    numbers = {name: np.array([one[name] for one in rows]) for name in rows[0] if name != "kept"}
    names = numbers_shown(settings) | {
        "n_contexts": "contexts found",
        "highest_activation": "highest activation, towards the tail",
        "context_radius": "fewest last tokens that carry the activation",
        "agreement_expected": "share of all tokens that are the one that the value raises most",
    }
    variables = {
        name: quantity(values, "key", names[name], "token" if name == "context_radius" else "1")
        for name, values in numbers.items()
        if name != "value_top_text"
    }
    variables["value_top_text"] = quantity(
        numbers["value_top_text"], "key", "token that the value raises most"
    )
    kept = np.stack([np.asarray(one["kept"], dtype=np.float64) for one in rows])
    variables["kept"] = quantity(kept, "key kept_tokens", "share of the activation kept by the last tokens")
    few = search.text.values >= 0
    variables["key_left_out_because"] = quantity(
        np.where(few.sum(axis=1) < 2, "fewer than two contexts excite it", ""),
        "key",
        "why the key shares nothing, or empty",
    )
    of_keys = {name: search[name].variable for name in ("key", "key_layer", "key_tail")}
    return xr.Dataset(variables, coords=of_keys | {"kept_tokens": contexts.kept_tokens.variable})


def _numbers_of(
    search: xr.Dataset, contexts: xr.Dataset, row: int, weights: np.ndarray, settings: Settings
) -> dict[str, object]:
    there = search.text.values[row] >= 0
    ids, texts = search.ids.values[row][there], search.text.values[row][there]
    mine = contexts.isel(context=np.flatnonzero(contexts.context_key.values == search.key.values[row]))
    whole = mine.activation.values
    tops, following = mine.value_top.values, mine.next_id.values
    agrees = np.where((following >= 0) & (tops >= 0), following == tops, np.nan)
    kept = _share(mine.activation_with_kept.values, whole[:, None])
    radius = context_radius(kept[1:], contexts.kept_tokens.values[1:], share=settings.kept_share)
    counts = search.counts.values
    return (
        shared_of(ids, texts, weights)
        | _tuned_numbers(mine, counts, settings)
        | {
            "n_contexts": int(there.sum()),
            "highest_activation": whole[0] if len(whole) else np.nan,
            "kept": kept,
            "kept_in_window": float(_share(mine.activation_in_window.values, whole)),
            "kept_without_last": float(_share(mine.activation_with_last_replaced.values, whole)),
            "context_radius": radius,
            "local": np.nan if np.isnan(radius) else float(radius <= LOCAL),
            "agreement": float(known_mean(agrees)),
            "agreement_of_top": float(agrees[0]) if len(agrees) else np.nan,
            "agreement_expected": counts[tops[0]] / counts.sum() if len(tops) and tops[0] >= 0 else np.nan,
            "next_percentile": float(known_mean(mine.next_percentile.values)),
            "value_top_text": str(mine.value_top_text.values[0]) if len(tops) else "",
        }
    )


def _tuned_numbers(mine: xr.Dataset, counts: np.ndarray, settings: Settings) -> dict[str, float]:
    if not settings.tuned:
        return {}
    tops, following = mine.value_top_tuned.values, mine.next_id.values
    agrees = np.where((following >= 0) & (tops >= 0), following == tops, np.nan)
    return {
        "agreement_tuned": float(known_mean(agrees)),
        "agreement_tuned_expected": counts[tops[0]] / counts.sum() if len(tops) and tops[0] >= 0 else np.nan,
        "next_percentile_tuned": float(known_mean(mine.next_percentile_tuned.values)),
    }


def _share(edited: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Summed activations of the edited contexts over those of the same contexts unedited."""
    known = ~np.isnan(edited)
    return share(np.where(known, edited, 0.0).sum(axis=0), np.where(known, whole, 0.0).sum(axis=0))


def shared_of(ids: np.ndarray, texts: np.ndarray, weights: np.ndarray) -> dict[str, object]:
    """What a set of contexts shares: its last token, its last two and three, and its other tokens."""
    bags, _ = weighted_bags(ids[:, :-1], weights)
    return {
        "shared_last_token": pair_agreement(ids[:, -1:]),
        "shared_bigram": pair_agreement(ids[:, -2:]),
        "shared_trigram": pair_agreement(ids[:, -3:]),
        "coherence": coherence(bags, texts) if bags.shape[1] else np.nan,
    }


def random_sets(search: xr.Dataset, settings: Settings) -> dict[str, np.ndarray]:
    """The same numbers of sets of random contexts, as many as `null_sets`."""
    there = np.flatnonzero(search.random_text.values >= 0)
    ids, texts = search.random_ids.values[there], search.random_text.values[there]
    weights = rarity(ids[:, :-1], search.sizes["token_id"])
    rng = np.random.default_rng([settings.seed, 25])
    size = min(settings.top, len(there))
    drawn = [rng.choice(len(there), size, replace=False) for _ in range(settings.null_sets)]
    sets = [shared_of(ids[rows], texts[rows], weights) for rows in drawn]
    return {name: np.array([one[name] for one in sets]) for name in SHARED}
