"""What the tokens of pairs that heads join have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments.weight_directions.measure.pairs import LIKENESS, alike, labels_of, share_of_known
from layerscope.experiments.weight_directions.settings import Settings
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.hits_by_chance import p_of_hits
from layerscope.results.schema import quantity

_FEWEST_HEADS = 3


def pair_summary(
    directions: xr.Dataset, vocabulary: xr.Dataset, n_layers: int, settings: Settings
) -> xr.Dataset:
    """What the tokens of pairs have in common, by layer, less what any two of the tokens compared have.

    Heads are the units: each is the mean over its pairs. Where likeness is rare, as of letters, no head may have such
    a pair: then all heads fall short of chance by as much, and the interval over them says nothing. So the number of
    all such pairs is held against chance, too.
    """
    if not directions.sizes.get("pair"):
        return xr.Dataset()
    rows = directions[[name for name in directions.variables if str(name).startswith("pair")]]
    variables: dict[str, Any] = {}
    heads = rows.pair_layer.values * 10_000 + rows.pair_head.values
    for name, what in LIKENESS.items():
        shared = alike(
            *(labels_of(vocabulary, name, rows[f"pair_{one}"].values) for one in ("asks", "answers"))
        )
        above = shared - rows[f"pair_{name}"].values
        by_layer, units = [], []
        for layer in range(n_layers):
            here = np.unique(heads[rows.pair_layer.values == layer])
            means = np.array([share_of_known(above[heads == head]) for head in here])
            units.append(means)
            by_layer.append(_interval(means, settings))
        variables |= interval_variables(
            f"pairs_{name}", stacked(by_layer), "layer", f"pairs of {what}, above any two tokens compared"
        )
        whole = _interval(np.concatenate(units), settings)
        variables |= interval_variables(
            f"all_pairs_{name}", whole, "", f"pairs of {what}, above chance, all heads"
        )
        by_chance = p_of_hits(shared, rows[f"pair_{name}"].values)
        variables[f"all_pairs_{name}_by_chance"] = quantity(
            by_chance, "", f"p of so many pairs of {what}, were they any two of the tokens compared"
        )
        variables[f"pair_{name}_here"] = quantity(shared, "pair", f"whether the two are of {what}")
    return rows.assign(variables)


def _interval(values: np.ndarray, settings: Settings) -> Any:
    """Mean over heads; NaN where fewer than three heads have pairs that can be compared."""
    given = values if np.isfinite(values).sum() >= _FEWEST_HEADS else np.array([np.nan])
    return bootstrap_mean(given, seed=settings.seed, level=settings.level, resamples=settings.resamples)
