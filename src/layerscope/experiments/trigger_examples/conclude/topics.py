"""How many made topics coherence finds: whether what it says of contexts is worth reporting."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.evidence import Finding, Over, finding, named
from layerscope.experiments.trigger_examples.settings import Settings
from layerscope.results.schema import quantity
from layerscope.text.token_sets import FEWEST_SETS


def power_of_coherence(topics: xr.Dataset, null: np.ndarray, settings: Settings) -> xr.Dataset:
    """Share of made sets above the level's quantile of random sets: mean over topics, interval over topics.

    Args:
        topics: what `measure_topics` gave.
        null: coherence of random sets of contexts.
    """
    chance = null[np.isfinite(null)]
    limit = np.quantile(chance, settings.level) if chance.size else np.nan
    values = topics.made_coherence
    found = (values > limit).where(np.isfinite(values) & np.isfinite(limit)).mean("draw", skipna=False)
    power = Over(topics, settings, rows="topic").mean(
        named(found, "topics_found", "share of made sets of contexts that coherence finds", "share")
    )
    known = topics.sizes["topic"]
    kept = {
        name: power[name].where(known >= FEWEST_SETS)
        for name in ("topics_found", "topics_found_low", "topics_found_high")
    }
    return power.assign(
        kept | {"topics_known": quantity(np.float64(known), "", "known sets of words in this vocabulary")}
    )


def topics_found(result: xr.Dataset, *, made: str = "one topic", words: int | None = None) -> Finding:
    """What coherence finds of made sets, by default of topics with the most words written into each context."""
    number = int(result.words.max()) if words is None else words
    return finding(result, "topics_found", unit="share", made=made, words=number)


def sees_topics(result: xr.Dataset) -> bool | None:
    """Whether coherence finds enough of the made topics; None where that is unknown."""
    if "topics_found" not in result or not (found := topics_found(result)).known:
        return None
    return found.value >= float(result.attrs.get("least_power", 0.5))
