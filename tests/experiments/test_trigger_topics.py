"""Does coherence find topics that were written into random contexts, and is it left out where it does not?"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from layerscope.experiments._trigger_claims import sees_topics
from layerscope.experiments._trigger_settings import Settings
from layerscope.experiments._trigger_topics import MADE, WORDS, _Contexts, power_of_coherence

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


@pytest.mark.parametrize(("share", "said"), [(0.9, True), (0.2, False)])
def test_coherence_is_reported_only_with_power(share: float, said: bool) -> None:
    result = xr.Dataset(
        {
            "topics_found": (("made", "words"), np.full((2, 3), share)),
            "topics_found_low": (("made", "words"), np.full((2, 3), share)),
            "topics_found_high": (("made", "words"), np.full((2, 3), share)),
            "topics_known": ((), 27.0),
            "halves": ("statistic", [0.3]),
            "halves_low": ("statistic", [0.2]),
            "halves_high": ("statistic", [0.4]),
            "halves_p_adjusted": ("statistic", [0.001]),
            "upper_half": ("statistic", [0.5]),
            "lower_half": ("statistic", [0.2]),
        },
        coords={"made": list(MADE), "words": list(WORDS), "statistic": ["coherence"]},
        attrs={"least_power": 0.5},
    )
    from layerscope.experiments._trigger_claims import _HALVES, _claim_of_topics, _claims_of_halves

    assert sees_topics(result) is said
    assert ("too few to report" in next(_claim_of_topics(result)).caveat) is not said
    only = {"coherence": _HALVES["coherence"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("layerscope.experiments._trigger_claims._HALVES", only)
        assert bool(list(_claims_of_halves(result))) is said
