"""From the contexts of keys to numbers of keys, of layers, and of the halves of the model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import layer_coordinate, text_coordinate
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments._trigger_settings import Settings
from layerscope.maths.bootstrap import Interval, bootstrap_difference, bootstrap_mean
from layerscope.maths.permutation import holm, permutation_difference
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
    return xr.Dataset(variables, coords={"kept_tokens": contexts.kept_tokens.variable})


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
            "agreement": float(_mean(agrees)),
            "agreement_of_top": float(agrees[0]) if len(agrees) else np.nan,
            "agreement_expected": counts[tops[0]] / counts.sum() if len(tops) and tops[0] >= 0 else np.nan,
            "next_percentile": float(_mean(mine.next_percentile.values)),
            "value_top_text": str(mine.value_top_text.values[0]) if len(tops) else "",
        }
    )


def _tuned_numbers(mine: xr.Dataset, counts: np.ndarray, settings: Settings) -> dict[str, float]:
    if not settings.tuned:
        return {}
    tops, following = mine.value_top_tuned.values, mine.next_id.values
    agrees = np.where((following >= 0) & (tops >= 0), following == tops, np.nan)
    return {
        "agreement_tuned": float(_mean(agrees)),
        "agreement_tuned_expected": counts[tops[0]] / counts.sum() if len(tops) and tops[0] >= 0 else np.nan,
        "next_percentile_tuned": float(_mean(mine.next_percentile_tuned.values)),
    }


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over contexts that have a value; NaN where none has."""
    known = ~np.isnan(values)
    n = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, n, out=np.full(np.shape(total), np.nan), where=n > 0))


def _share(edited: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Summed activations of the edited contexts over those of the same contexts unedited."""
    known = ~np.isnan(edited)
    below = np.where(known, whole, 0.0).sum(axis=0)
    above = np.where(known, edited, 0.0).sum(axis=0)
    return np.asarray(np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0))


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


def layer_numbers(
    keys: xr.Dataset, layers: np.ndarray, tails: np.ndarray, n_layers: int, settings: Settings
) -> dict[str, xr.Variable]:
    """Means over the keys of each layer with intervals, positive tails; and each length of what is kept."""
    members = [np.flatnonzero((layers == layer) & (tails > 0)) for layer in range(n_layers)]
    variables: dict[str, xr.Variable] = {}
    for name, long_name in numbers_shown(settings).items():
        interval = stacked([_mean_of(keys[name].values[rows], settings) for rows in members])
        variables |= interval_variables(f"mean_{name}", interval, "layer", f"{long_name}, mean over keys")
    radius, lengths = keys.context_radius.values[:, None], keys.kept_tokens.values
    within = np.where(np.isnan(radius), np.nan, radius <= lengths)
    shares = stacked([_mean_of(within[rows], settings) for rows in members])
    variables |= interval_variables(
        "mean_within", shares, "layer kept_tokens", "share of keys whose radius is at most so many tokens"
    )
    kept = stacked([_mean_of(keys.kept.values[rows], settings) for rows in members])
    return variables | interval_variables(
        "mean_kept",
        kept,
        "layer kept_tokens",
        "share of the activation kept by the last tokens, mean over keys",
    )


def _mean_of(values: np.ndarray, settings: Settings) -> Interval:
    return bootstrap_mean(
        values.astype(np.float64), seed=settings.seed, level=settings.level, resamples=settings.resamples
    )


def null_numbers(
    keys: xr.Dataset,
    layers: np.ndarray,
    tails: np.ndarray,
    n_layers: int,
    sets: Mapping[str, np.ndarray],
    settings: Settings,
) -> dict[str, xr.Variable]:
    """What random sets share, and whether the keys of a layer share more: p by permutation, Holm over layers."""
    variables: dict[str, xr.Variable] = {}
    for name, long_name in SHARED.items():
        chance = sets[name]
        p = [
            permutation_difference(
                keys[name].values[(layers == layer) & (tails > 0)],
                chance,
                seed=settings.seed,
                resamples=settings.permutations,
            ).p
            for layer in range(n_layers)
        ]
        known = chance[~np.isnan(chance)]
        variables[f"null_{name}"] = quantity(
            np.full(n_layers, known.mean() if known.size else np.nan),
            "layer",
            f"{long_name}, random contexts",
        )
        variables[f"p_adjusted_{name}"] = quantity(
            holm(p), "layer", f"p that keys differ from random sets in this, Holm over layers: {name}"
        )
    expected = [
        _mean_of(keys.agreement_expected.values[(layers == layer) & (tails > 0)], settings).value
        for layer in range(n_layers)
    ]
    return variables | {
        "null_agreement": quantity(
            np.array(expected), "layer", "agreement with any token of the corpus, mean over keys"
        )
    }


HALVES = ("shared_last_token", "coherence", "kept_without_last", "local", "agreement")


def halves(
    keys: xr.Dataset, layers: np.ndarray, tails: np.ndarray, n_layers: int, settings: Settings
) -> xr.Dataset:
    """The upper half of the layers less the lower half, with Holm's correction over what is compared."""
    upper, positive = layers >= n_layers / 2, tails > 0
    groups = [(keys[name].values[upper & positive], keys[name].values[~upper & positive]) for name in HALVES]
    tests = [
        permutation_difference(a, b, seed=settings.seed, resamples=settings.permutations) for a, b in groups
    ]
    unknown = np.array(np.nan)
    spans = stacked(
        [
            bootstrap_difference(
                a.astype(np.float64), b.astype(np.float64),
                seed=settings.seed, level=settings.level, resamples=settings.resamples,
            )
            if min(len(a), len(b)) > 0
            else Interval(unknown, unknown, unknown, np.array(0))
            for a, b in groups
        ]
    )  # fmt: skip
    variables = interval_variables(
        "halves", spans, "statistic", "upper half of the layers less the lower half"
    )
    variables["halves_p_adjusted"] = quantity(
        holm([test.p for test in tests]), "statistic", "p by permutation of keys, Holm over the statistics"
    )
    for name, side in (("upper_half", 0), ("lower_half", 1)):
        means = [float(_mean(group[side].astype(np.float64))) for group in groups]
        variables[name] = quantity(np.array(means), "statistic", f"mean over keys, {name.replace('_', ' ')}")
    return xr.Dataset(
        variables, coords={"statistic": text_coordinate(HALVES, "statistic", "what is compared")}
    )


def whole_model(keys: xr.Dataset, tails: np.ndarray, settings: Settings) -> dict[str, xr.Variable]:
    """Means over all keys, and agreement beyond what frequency gives."""
    positive = tails > 0
    variables: dict[str, xr.Variable] = {}
    for name, long_name in numbers_shown(settings).items():
        interval = _mean_of(keys[name].values[positive], settings)
        variables |= interval_variables(f"all_{name}", interval, "", f"{long_name}, mean over all keys")
    beyond = keys.agreement.values - keys.agreement_expected.values
    return variables | interval_variables(
        "all_agreement_beyond_frequency",
        _mean_of(beyond[positive], settings),
        "",
        "agreement less the frequency of the token that the value raises most, mean over all keys",
    )


def census_numbers(census: xr.Dataset, settings: Settings) -> dict[str, xr.Variable]:
    """Shares over census passages, for each layer, with intervals over passages."""
    variables: dict[str, xr.Variable] = {}
    for name in ("active_share", "effective_share", "unmatched_share", "unmatched_by_chance"):
        interval = _mean_of(census[name].values, settings)
        long_name = str(census[name].attrs["long_name"])
        variables |= interval_variables(f"mean_{name}", interval, "layer", f"{long_name}, mean over passages")
    means = _mean(np.moveaxis(census.unmatched_share.values, 1, 0))
    variables |= interval_variables(
        "all_unmatched_share",
        _mean_of(means, settings),
        "",
        "share of outputs whose top token no active value has, mean over layers and passages",
    )
    live = (census.highest.values > 0) & np.isfinite(census.highest.values)
    share = live.sum(axis=1) / np.isfinite(census.highest.values).sum(axis=1)
    return variables | {
        "live_share": quantity(share, "layer", "share of keys that are ever above 0 in the census")
    }


def layer_axis(n_layers: int) -> dict[str, xr.Variable]:
    """The coordinate of everything per layer."""
    return {"layer": layer_coordinate(n_layers)}


def unused(keys: xr.Dataset) -> np.ndarray:
    """Why a key is left out of what contexts share, or empty."""
    few = keys.n_contexts.values < 2
    return np.where(few, "fewer than two contexts excite it", "")
