"""Rates of coherent directions by kind and layer, and what they are held against."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments.weight_directions.conclude.rated import (
    ALL_RATERS,
    Rated,
    counted,
    means,
    rate_variables,
)
from layerscope.experiments.weight_directions.settings import (
    KNOWN_SET,
    MATCHED_SET,
    RANDOM,
    ROTATED,
    SINGULAR,
    UNRELATED,
    WRITES,
    Settings,
)
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.permutation import holm
from layerscope.maths.trend import rate_difference_p
from layerscope.results.schema import quantity


def _chance(rated: Rated, kinds: Sequence[str]) -> np.ndarray:
    return np.array([rated.chance["writes" if kind in WRITES else "reads"] for kind in kinds]).reshape(
        len(kinds), len(ALL_RATERS)
    )


def rates(rated: Rated, kinds: Sequence[str], n_layers: int) -> dict[str, xr.Variable]:
    """Shares of coherent singular directions and rotations, by layer and of all layers."""
    shape = (len(kinds), n_layers, len(ALL_RATERS))
    variables: dict[str, xr.Variable] = {}
    for name, origin, what in (
        ("rate", SINGULAR, "share of coherent directions"),
        ("rotated_rate", ROTATED, "share of coherent rotations"),
    ):
        hits, n = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for i, kind in enumerate(kinds):
            for layer in range(n_layers):
                hits[i, layer], n[i, layer] = counted(
                    rated.hits[rated.of(kind=kind, layer=layer, origin=origin)]
                )
        variables |= rate_variables(name, hits, n, "kind layer rater", what)
        if name == "rate":
            chance = _chance(rated, kinds)[:, None]
            variables |= rate_variables(
                "lift",
                hits,
                n,
                "kind layer rater",
                "share of coherent directions above that of random ones",
                less=chance,
            )
        variables |= rate_variables(
            f"whole_{name}", hits.sum(1), n.sum(1), "kind rater", f"{what}, all layers"
        )
    return variables


def controls(
    rated: Rated, stages: Earlier, settings: Settings, kinds: Sequence[str]
) -> dict[str, xr.Variable]:
    """The same of random directions, of an untrained twin and of other tokens as frequent, and what exceeds them."""
    chance = _chance(rated, kinds)
    variables = {"random_rate": quantity(chance, "kind rater", "share of coherent random directions")}
    hits, n = (np.zeros((len(kinds), len(ALL_RATERS)), np.int64) for _ in range(2))
    twin = stages["untrained"]
    if twin.sizes.get("direction"):
        random = twin.origin.values == RANDOM
        made = twin.isel(direction=np.isin(twin.origin.values, (KNOWN_SET, MATCHED_SET, UNRELATED)))
        singular = twin.isel(direction=twin.origin.values == SINGULAR)
        of_twin = Rated(singular, twin.isel(direction=random), made, settings, xr.Dataset())
        for i, kind in enumerate(kinds):
            hits[i], n[i] = counted(of_twin.hits[of_twin.of(kind=kind, origin=SINGULAR)])
    variables |= rate_variables(
        "untrained_rate", hits, n, "kind rater", "share of coherent directions, untrained twin"
    )
    found = [counted(rated.matched[rated.of(kind=kind, origin=SINGULAR)]) for kind in kinds]
    hits, n = (
        (np.array(column).reshape(hits.shape) for column in zip(*found, strict=True)) if found else (hits, n)
    )
    variables |= rate_variables(
        "matched_rate", hits, n, "kind rater", "share of coherent sets of tokens as frequent"
    )
    for name, what in (("rotations", "rotations"), ("matched", "other tokens as frequent")):
        above, p = _above(name, rated, kinds, settings)
        about = f"share of coherent directions above that of {what}, by matrix"
        variables |= interval_variables(f"above_{name}", above, "kind rater", about)
        variables[f"above_{name}_p"] = quantity(
            np.stack([holm(column) for column in p.T], axis=1),
            "kind rater",
            "p of no difference, by Holm over kinds",
        )
    return variables


def _above(control: str, rated: Rated, kinds: Sequence[str], settings: Settings) -> tuple[Any, np.ndarray]:
    """Mean over matrices of the rate less that of a control, and p of the two pooled rates being one."""
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)
    intervals, p = [], np.full((len(kinds), len(ALL_RATERS)), np.nan)

    def pairs(rows: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        singular = rows[origin == SINGULAR]
        return rated.hits[singular], rated.matched[singular] if control == "matched" else rated.hits[
            rows[origin == ROTATED]
        ]

    for i, kind in enumerate(kinds):
        rows = rated.of(kind=kind)
        names = [
            f"{a} {b}"
            for a, b in zip(
                rated.rows.direction_layer.values[rows], rated.rows.direction_matrix.values[rows], strict=True
            )
        ]
        origin = rated.rows.origin.values[rows]
        differences = []
        for name in dict.fromkeys(names):
            here = np.array(names) == name
            pair = pairs(rows[here], origin[here])
            differences.append(
                np.subtract(
                    *(
                        np.array([*means(part)]) if len(part) else np.full(len(ALL_RATERS), np.nan)
                        for part in pair
                    )
                )
            )
        intervals.append(mean(np.array(differences)))
        (hits, n), (other, m) = (counted(part) for part in pairs(rows, origin))
        p[i] = [rate_difference_p(*map(int, four)) for four in zip(hits, n, other, m, strict=True)]
    return stacked(intervals), p


def near_equal_shares(rated: Rated, kinds: Sequence[str], n_layers: int) -> dict[str, xr.Variable]:
    """Of each kind and layer, the share of directions that are defined only together with a neighbour."""
    together = np.full((len(kinds), n_layers), np.nan)
    for i, kind in enumerate(kinds):
        for layer in range(n_layers):
            rows = rated.of(kind=kind, layer=layer, origin=SINGULAR)
            keys = [
                f"{a} {b}"
                for a, b in zip(
                    rated.rows.direction_matrix.values[rows], rated.rows.subspace.values[rows], strict=True
                )
            ]
            if keys:
                _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
                together[i, layer] = (counts[inverse] > 1).mean()
    return {"near_equal": quantity(together, "kind layer", "share of directions with a near-equal neighbour")}
