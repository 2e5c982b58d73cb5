"""How much more a removal moves the logits of a direction's own tokens than those of others."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import head_name, text_coordinate
from layerscope.evidence.quantities import interval_variables
from layerscope.experiments.weight_directions.settings import Settings
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.permutation import holm
from layerscope.results.schema import quantity


def removals(edits: xr.Dataset, settings: Settings) -> xr.Dataset:
    """How many times as far a removal moves a direction's own tokens as others; texts are the units."""
    if not edits.sizes.get("edit") or not edits.sizes.get("edit_text"):
        return xr.Dataset()
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)
    logs = {}
    for name, below in (("edit_selectivity", "unrelated_change"), ("edit_over_control", "control_change")):
        above, under = edits.related_change.values, edits[below].values
        known = (above > 0) & (under > 0)
        logs[name] = np.where(known, np.log(np.where(known, above, 1) / np.where(known, under, 1)), np.nan)
    what = {
        "edit_selectivity": "log ratio of the change of its own tokens' logits to that of others",
        "edit_over_control": "log ratio of the change of its own tokens' logits to that by a rotation",
    }
    variables: dict[str, Any] = {}
    for name, values in logs.items():
        variables |= interval_variables(name, mean(values.T), "edit", what[name], "nat")
    p = [_t_test(row) for row in logs["edit_selectivity"]]
    variables["edit_p"] = quantity(holm(p), "edit", "p of no difference over texts, by Holm over removals")
    names = [
        f"layer {layer} {'MLP' if matrix == 'mlp' else matrix}, direction {rank}"
        for layer, matrix, rank in zip(
            edits.edit_layer.values, edits.edit_matrix.values, edits.edit_rank.values, strict=True
        )
    ]
    found = edits.assign(variables).assign_coords(edit=text_coordinate(names, "edit", "removed direction"))
    return found.assign(ratios(found))


def ratios(result: xr.Dataset) -> dict[str, xr.Variable]:
    """How many times as much its own tokens' logits move as others': the same as a plain number."""
    what = "change of its own tokens' logits over that of others"
    return {
        f"edit_ratio{end}": quantity(np.exp(result[f"edit_selectivity{end}"].values), "edit", f"{what}{said}")
        for end, said in (("", ""), ("_low", ", lower end"), ("_high", ", upper end"))
    }


def removed_in_words(result: xr.Dataset, name: str) -> str:
    """A removed direction as sentences call it: "direction 0 of L3H1"."""
    here = result.sel(edit=name)
    return direction_in_words(int(here.edit_rank), int(here.edit_layer), str(here.edit_matrix.item()))


def direction_in_words(rank: int, layer: int, matrix: str) -> str:
    """Where a direction is, as the field writes it: "direction 0 of L3H1", "direction 4 of L5 MLP"."""
    return f"direction {rank} of {matrix_in_words(layer, matrix)}"


def matrix_in_words(layer: int, matrix: str) -> str:
    """A matrix by its layer: "L3H1", "L5 MLP", "L1 expert 3"."""
    kind, _, number = matrix.partition(" ")
    return (
        head_name(layer, int(number)) if kind == "head" else f"L{layer} {'MLP' if kind == 'mlp' else matrix}"
    )


def _t_test(values: np.ndarray) -> float:
    """Two-sided p of a mean of 0, by Student's t; NaN with fewer than two values."""
    from scipy.special import stdtr

    known = values[np.isfinite(values)]
    if len(known) < 2 or known.std() == 0:
        return float("nan")
    t = known.mean() / (known.std(ddof=1) / np.sqrt(len(known)))
    return float(2 * stdtr(len(known) - 1, -abs(t)))
