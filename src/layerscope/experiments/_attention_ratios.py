"""Ratios of sums: every statistic by layer and by head, and of uniform attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.quantities import interval_variables
from layerscope.experiments._attention_settings import Settings
from layerscope.maths.ratios import bootstrap_ratio, known_mean, ratio
from layerscope.results.schema import quantity


@dataclass(frozen=True)
class Statistic:
    """A ratio of two sums.

    Attributes:
        above, below: names of the sums.
        long_name, units: of the ratio.
    """

    above: str
    below: str
    long_name: str
    units: str = "1"


STATISTICS = {
    "first_token_share": Statistic("first token", "every", "share of attention on the first token"),
    "kept_share": Statistic("every", "queries", "attention that counts, of one for each query"),
    "entropy": Statistic("entropy", "entropy queries", "entropy of attention", "nat"),
    "span": Statistic("span", "entropy queries", "effective span of attention", "tokens"),
    "distance": Statistic("distance", "every", "mean distance of attention", "tokens"),
    "fixed_distance": Statistic(
        "fixed distance", "fixed", "mean distance of attention at fixed queries", "tokens"
    ),
    "own_token_share": Statistic("self", "every", "share of attention on the token itself"),
    "previous_token_share": Statistic("previous token", "every", "share of attention on the previous token"),
    "duplicate_share": Statistic(
        "duplicate token", "with duplicate", "share on earlier copies of the token, where there are any"
    ),
    "induction_share": Statistic(
        "induction",
        "with induction",
        "share on what followed earlier copies of the token, where there are any",
    ),
}
REPEATED = {
    "repeat_previous_token_share": STATISTICS["previous_token_share"],
    "repeat_duplicate_share": Statistic(
        "duplicate token",
        "with duplicate",
        "share on the same token of the first reading, random text read twice",
    ),
    "repeat_induction_share": Statistic(
        "induction", "with induction", "share on what followed in the first reading, random text read twice"
    ),
}
DEPENDENCIES = {
    "dependency_share": Statistic("dependency", "every", "share of attention along dependencies"),
    "to_head_share": Statistic("to head", "every", "share of attention on the word depended on"),
    "to_dependent_share": Statistic("to dependent", "every", "share of attention on words that depend on it"),
}
HEADED = "definition layer head"

ONE_BY_ONE = (
    "first_token_share", "previous_token_share", "repeat_duplicate_share", "repeat_induction_share",
    "dependency_share", "variability",
)  # fmt: skip
"""Statistics that have an interval for every head: those by which single heads are named."""


def sum_of(sums: xr.DataArray, name: str) -> np.ndarray:
    """One sum [unit definition layer head]."""
    dimension = str(sums.dims[-1])
    return np.asarray(sums.values[..., list(sums[dimension].values).index(name)], dtype=np.float64)


def zero_where_absent(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values)  # a layer or head that is not there has no sums, and so no ratio


def of_texts(
    model: xr.DataArray, uniform: xr.DataArray, statistics: Mapping[str, Statistic], settings: Settings
) -> dict[str, Any]:
    """Each statistic by layer with its interval, by head, and of uniform attention."""
    variables: dict[str, Any] = {}
    for name, statistic in statistics.items():
        above, below = (zero_where_absent(sum_of(model, part)) for part in (statistic.above, statistic.below))
        variables |= by_layer_and_head(name, above, below, statistic, settings)
        null = ratio(
            *(zero_where_absent(sum_of(uniform, part)) for part in (statistic.above, statistic.below))
        )
        variables[f"uniform_{name}"] = quantity(
            known_mean(null), "definition layer", f"{statistic.long_name}, uniform attention", statistic.units
        )
    return variables


def by_layer_and_head(
    name: str,
    above: np.ndarray,
    below: np.ndarray,
    statistic: Statistic,
    settings: Settings,
    dims: str = HEADED,
) -> dict[str, Any]:
    find = partial(
        bootstrap_ratio, above, below, seed=settings.seed, level=settings.level, resamples=settings.resamples
    )
    variables: dict[str, Any] = interval_variables(
        name,
        find(mean_of_last=True),
        dims.removesuffix(" head"),
        f"{statistic.long_name}, mean over heads",
        statistic.units,
    )
    head, units = f"head_{name}", statistic.units
    if name not in ONE_BY_ONE:
        return variables | {head: quantity(ratio(above, below), dims, statistic.long_name, units)}
    by_head = interval_variables(head, find(), dims, statistic.long_name, units)
    return variables | {key: value for key, value in by_head.items() if not key.endswith("_n")}
