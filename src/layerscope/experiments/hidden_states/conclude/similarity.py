"""How alike every two depths are: cosines of some tokens, and centred kernel alignment."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import groups_along
from layerscope.evidence.groups import per_unit
from layerscope.evidence.quantities import interval_variables
from layerscope.experiments.hidden_states.settings import Settings
from layerscope.maths.alignment import alignment
from layerscope.maths.bootstrap import bootstrap_mean, bootstrap_statistic

_MOST_RESAMPLES = 1000


def pairs_of_depths(states: xr.Dataset, settings: Settings) -> dict[str, Any]:
    """Mean cosine between the states of one token at every two depths, with intervals over passages."""
    groups = groups_along(states, "sampled_passage").values()
    variables: dict[str, Any] = {}
    for name in ("pair_cosine", "pair_cosine_centred") if groups else ():
        per_passage = per_unit(states[name].values.astype(np.float64), groups)
        found = bootstrap_mean(
            per_passage, seed=settings.seed, level=settings.level, resamples=settings.resamples
        )
        what = f"{states[name].attrs['long_name']}, mean over passages"
        variables |= interval_variables(f"mean_{name}", found, "depth other_depth", what)
    return variables


def alignments(states: xr.Dataset, settings: Settings) -> dict[str, Any]:
    """CKA from the passages' dependences, averaged before the ratio; its interval by resampling passages."""
    known = states.dependence.values[~np.isnan(states.dependence.values).any(axis=(1, 2))]
    if not len(known):
        return {}
    scaled = known / np.trace(known, axis1=1, axis2=2).mean()  # short numbers; a ratio does not mind
    interval = bootstrap_statistic(
        scaled,
        lambda rows: alignment(rows.mean(axis=0)),
        seed=settings.seed,
        level=settings.level,
        resamples=min(_MOST_RESAMPLES, settings.resamples),
    )
    return interval_variables(
        "alignment", interval, "depth other_depth", "centred kernel alignment of two depths"
    )
