"""Ratios of sums: every statistic by layer and by head, and of uniform attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from layerscope.evidence import Over, along, cell_by_cell, named
from layerscope.maths.arrays import divide
from layerscope.maths.ratios import known_mean


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

    def parts(self, sums: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
        """What stands above and what below, from a table of sums."""
        return sum_of(sums, self.above), sum_of(sums, self.below)


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
NULLS = {"own_mean": "head's mean pattern", "uniform": "uniform attention"}

_PICKED_LAYERS = ("fixed_distance", "variability", "dependency_share")
_PICKED_HEADS = (
    "previous_token_share", "repeat_duplicate_share", "repeat_induction_share", "dependency_share",
)  # fmt: skip
"""Statistics of which claims name the layer or the head with most: their intervals hold for all at once."""

_ONE_BY_ONE = (*_PICKED_HEADS, "first_token_share", "variability")
"""Statistics that have an interval for every head."""


def sum_of(sums: xr.DataArray, name: str) -> xr.DataArray:
    """One sum [unit definition layer head]; a layer or head that is not there adds nothing, and has no ratio."""
    return sums.sel({sums.dims[-1]: name}, drop=True).astype(np.float64).fillna(0)


def ratio_of(above: xr.DataArray, below: xr.DataArray, unit: str) -> xr.DataArray:
    """Σ above / Σ below over units, without an interval."""
    return cell_by_cell(divide, above.sum(unit, skipna=False), below.sum(unit, skipna=False))


def over_heads(
    name: str, above: xr.DataArray, below: xr.DataArray, unit: str, long_name: str, units: str = "1"
) -> xr.Dataset:
    """The mean over heads of such ratios."""
    return named(along("head", known_mean, ratio_of(above, below, unit)), name, long_name, units).to_dataset()


def of_texts(
    over: Over, model: xr.DataArray, uniform: xr.DataArray, statistics: Mapping[str, Statistic]
) -> list[xr.Dataset]:
    """Each statistic by layer with its interval, by head, and of uniform attention."""
    found = []
    for name, statistic in statistics.items():
        found += by_layer_and_head(over, name, *statistic.parts(model), statistic)
        null = f"{statistic.long_name}, uniform attention"
        found.append(
            over_heads(f"uniform_{name}", *statistic.parts(uniform), over.unit, null, statistic.units)
        )
    return found


def by_layer_and_head(
    over: Over, name: str, above: xr.DataArray, below: xr.DataArray, statistic: Statistic
) -> list[xr.Dataset]:
    """A statistic's mean over heads by layer, and every head's own."""
    long_name, units = statistic.long_name, statistic.units
    by_layer = over.ratio(
        named(above, name, f"{long_name}, mean over heads", units),
        below,
        mean_over="head",
        together="layer" if name in _PICKED_LAYERS else (),
        draws=name == "first_token_share",
    )
    head = f"head_{name}"
    if name not in _ONE_BY_ONE:
        return [by_layer, named(ratio_of(above, below, over.unit), head, long_name, units).to_dataset()]
    by_head = over.ratio(
        named(above, head, long_name, units),
        below,
        together=("layer", "head") if name in _PICKED_HEADS else (),
    )
    return [by_layer, by_head.drop_vars(f"{head}_n")]


def beside_nulls(
    over: Over, name: str, parts: Mapping[str, tuple[xr.DataArray, xr.DataArray]], statistic: Statistic
) -> list[xr.Dataset]:
    """A statistic among the first tokens with its interval, and each null's, all means over heads.

    Args:
        over: the texts.
        name: of the statistic; variables are called after it.
        parts: what stands above and below, of the model ("corner") and of each null.
        statistic: what it is called.
    """
    long_name, units = f"{statistic.long_name}, first tokens", statistic.units
    above, below = parts["corner"]
    early = over.ratio(named(above, f"early_{name}", long_name, units), below, mean_over="head")
    nulls = [
        over_heads(
            f"{source}_early_{name}",
            *parts["uniform_corner" if source == "uniform" else source],
            over.unit,
            f"{long_name}, {whose}",
            units,
        )
        for source, whose in NULLS.items()
    ]
    return [early.drop_vars(f"early_{name}_n"), *nulls]  # as many as there are texts
