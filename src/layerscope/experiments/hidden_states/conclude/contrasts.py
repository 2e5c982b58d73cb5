"""Categories of prompts compared along the path of their last tokens."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import text_coordinate
from layerscope.experiments.hidden_states.conclude.curves import transformed
from layerscope.experiments.hidden_states.measure.path import axis_of, long_name
from layerscope.experiments.hidden_states.settings import Settings
from layerscope.maths.max_statistic import compare_curves
from layerscope.maths.permutation import least_p_of_splits
from layerscope.results.schema import quantity

COMPARED = ("norm", "relative_step", "turn", "successive_cosine", "centred_cosine", "step_direction",
            "attention_share", "attention_direction", "mlp_direction")  # fmt: skip
"""Quantities in which categories of prompts are compared, all layers of all of them as one family."""
_PERMUTATIONS = 1999


def compared_categories(
    prompts: xr.Dataset, rows: dict[str, np.ndarray], settings: Settings, coords: dict[str, Any]
) -> dict[str, Any]:
    """Pairs of categories: every quantity at every layer, one family for each pair, times the pairs."""
    pairs = list(combinations(rows, 2))
    if not pairs:
        return {}
    cells = np.stack([_by_layer(prompts, name) for name in COMPARED], axis=1)  # [prompt quantity layer]
    compared = [
        compare_curves(cells[rows[a]], cells[rows[b]], seed=settings.seed, permutations=_PERMUTATIONS)
        for a, b in pairs
    ]
    sizes = np.array([[len(rows[a]), len(rows[b])] for a, b in pairs])
    least = np.array([least_p_of_splits(int(n), int(m), resamples=_PERMUTATIONS) for n, m in sizes])
    coords["contrast"] = text_coordinate([f"{a} − {b}" for a, b in pairs], "contrast", "pair of categories")
    coords["compared"] = text_coordinate(
        [long_name(name) for name in COMPARED], "compared", "what is compared"
    )
    dims = "contrast compared layer"
    return {
        "contrast_difference": quantity(
            np.stack([one.difference for one in compared]),
            dims,
            "difference between categories, of logarithms where it is a length or a ratio",
        ),
        "contrast_p": quantity(
            np.minimum(1, np.stack([one.p for one in compared]) * len(pairs)),
            dims,
            "p by permutation of prompts, for all layers and quantities, times the number of pairs",
        ),
        "contrast_difference_least_p": quantity(least, "contrast", "smallest p that was possible"),
        "contrast_difference_least_p_adjusted": quantity(
            np.minimum(1, least * len(pairs)), "contrast", "smallest adjusted p that was possible"
        ),
        "contrast_n_first": quantity(sizes[:, 0], "contrast", "prompts of the first category"),
        "contrast_n_second": quantity(sizes[:, 1], "contrast", "prompts of the second category"),
    }


def _by_layer(prompts: xr.Dataset, name: str) -> np.ndarray:
    values = transformed(name, prompts[f"prompt_{name}"].values)
    return values[:, 1:] if axis_of(name) == "depth" else values  # the norm behind each layer
