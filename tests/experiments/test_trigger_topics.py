"""What trigger_examples concludes of numbers that were put there: made topics, layers, halves of the model."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from layerscope.experiments.trigger_examples.conclude.keys import OF_KEYS, SHARED
from layerscope.experiments.trigger_examples.conclude.layers import halves, layer_numbers, null_numbers
from layerscope.experiments.trigger_examples.conclude.topics import power_of_coherence
from layerscope.experiments.trigger_examples.measure.topics import MADE, WORDS, _Contexts
from layerscope.experiments.trigger_examples.settings import Settings
from layerscope.maths.permutation import permutation_difference

SETTINGS = Settings(top=20, resamples=100)


def search(vocabulary: int = 5000, seed: int = 0) -> xr.Dataset:
    """Random contexts of 24 random tokens: what is alike in them was written by the test."""
    draw = np.random.default_rng(seed)
    return xr.Dataset(
        {
            "random_ids": (("random", "place"), draw.integers(0, vocabulary, (200, 24))),
            "random_text": ("random", np.arange(200)),
            "counts": ("token_id", np.zeros(vocabulary)),
        }
    )


def topics(contexts: _Contexts, sizes: int) -> xr.Dataset:
    """Coherence of made sets: eight topics of some ten tokens each, and all of their tokens mixed."""
    sets = [np.arange(10 * i, 10 * i + sizes) for i in range(8)]
    everything = np.concatenate(sets)
    values = [
        [
            [[contexts.coherence_with(words, n, seed=(i, n, d, k)) for d in range(4)] for n in WORDS]
            for k, words in enumerate((tokens, everything))
        ]
        for i, tokens in enumerate(sets)
    ]
    return xr.Dataset(
        {"made_coherence": (("topic", "made", "words", "draw"), np.array(values))},
        coords={"topic": [f"topic {i}" for i in range(8)], "made": list(MADE), "words": list(WORDS)},
    )


def test_words_are_written_before_the_last_token_and_topics_are_found() -> None:
    contexts = _Contexts(search(), SETTINGS)
    null = np.array([contexts.coherence_with(np.arange(5000), 4, seed=(9, n)) for n in range(60)])
    found = power_of_coherence(topics(contexts, 10), null, SETTINGS)

    one_topic, mixed = found.topics_found.values
    assert one_topic[-1] == 1.0  # four of ten words in each of twenty contexts: many pairs share one
    assert one_topic[0] < one_topic[-1] or one_topic[0] == 1.0
    assert mixed[0] <= one_topic[0]
    assert float(found.topics_known) == 8


def test_too_few_known_topics_leave_the_power_unknown() -> None:
    contexts = _Contexts(search(), SETTINGS)
    few = topics(contexts, 10).isel(topic=slice(4))

    assert np.isnan(power_of_coherence(few, np.zeros(60), SETTINGS)["topics_found"].values).all()


def keys(later: float, layers: int = 4, each: int = 6) -> xr.Dataset:
    """Keys whose contexts share their last token by so much more often in the later half of the layers."""
    rng, n = np.random.default_rng(0), layers * each
    layer = np.repeat(np.arange(layers), each)
    numbers = {name: ("key", rng.normal(0.5, 0.1, n)) for name in OF_KEYS}
    numbers["shared_last_token"] = ("key", 0.5 + later * (layer >= layers / 2) + rng.normal(0, 0.01, n))
    numbers |= {name: ("key", np.full(n, 0.1)) for name in ("agreement_expected", "context_radius")}
    kept = (("key", "kept_tokens"), np.tile([0.0, 0.5], (n, 1)))
    return xr.Dataset(
        numbers | {"kept": kept},
        coords={
            "key": [f"{a}:{b}" for b, a in enumerate(layer)],
            "key_layer": ("key", layer),
            "kept_tokens": [0, 1],
        },
    )


@pytest.mark.parametrize("later", [0.3, -0.3])
def test_halves_are_later_less_earlier_and_corrected_for_the_five_that_are_compared(later: float) -> None:
    given = keys(later)
    result = halves(given, 4, SETTINGS)
    shared = given.shared_last_token.values
    alone = permutation_difference(shared[12:], shared[:12], seed=0, resamples=SETTINGS.permutations).p

    assert float(result.halves.sel(statistic="shared_last_token")) == pytest.approx(later, abs=0.02)
    assert float(result.halves_p_adjusted.sel(statistic="shared_last_token")) == pytest.approx(5 * alone)
    assert float(result.halves_least_p_adjusted[0]) == pytest.approx(5 * float(result.halves_least_p[0]))
    assert (float(result.upper_half[0]) > float(result.lower_half[0])) is (later > 0)
    assert (int(result.halves_n_upper[0]), int(result.halves_n_lower[0])) == (12, 12)


def test_layers_are_held_against_random_sets_and_corrected_for_their_number() -> None:
    given, chance = keys(0.3), np.random.default_rng(1).normal(0.5, 0.01, 100)
    result = null_numbers(given, 4, dict.fromkeys(SHARED, chance), SETTINGS)
    alone = permutation_difference(
        given.shared_last_token.values[18:], chance, seed=0, resamples=SETTINGS.permutations
    ).p

    assert result.p_adjusted_shared_last_token.values[3] == pytest.approx(4 * alone)
    assert (result.p_adjusted_shared_last_token.values[:2] > 0.05).all()
    assert result.null_shared_last_token.values == pytest.approx([chance.mean()] * 4)
    least = result.mean_shared_last_token_least_p_adjusted.values
    assert least == pytest.approx(4 * result.mean_shared_last_token_least_p.values)


def test_layers_without_keys_have_no_mean_and_the_others_keep_their_replicates() -> None:
    result = layer_numbers(keys(0.3).isel(key=slice(0, 12)), 4, SETTINGS)

    assert np.isfinite(result.mean_shared_last_token.values).tolist() == [True, True, False, False]
    assert result.mean_shared_last_token_draws.dims == ("draw", "layer")
    assert result.mean_shared_last_token_draws.sel(layer=0).mean() == pytest.approx(
        float(result.mean_shared_last_token.sel(layer=0)), abs=0.01
    )
