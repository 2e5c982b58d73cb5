"""What else directions tell: the kind of their tokens, removals, words that were searched for, what a rater said."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments.weight_directions.settings import OWN, RATERS, ROTATED, SINGULAR, Settings
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.coherence import share_of_commonest
from layerscope.maths.correlation import rank_correlation
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.experiments.weight_directions.conclude.rated import Rated


def character(
    rated: Rated, vocabulary: xr.Dataset, kinds: Sequence[str], n_layers: int, settings: Settings, rater: str
) -> xr.Dataset:
    """Word fragments, parts of speech and frequency of the tokens at the better end."""
    rows = rated.rows
    place = RATERS.index(rater) if rater in RATERS else RATERS.index(OWN)
    values = rows.coherence.values[:, :, place]
    end = np.where(np.isnan(values), -np.inf, values).argmax(axis=1) if len(values) else np.zeros(0, int)
    tokens = rows.top_token.values[np.arange(len(end)), end]
    measures = _measures(tokens, vocabulary)
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=200)
    variables: dict[str, Any] = {}
    for name, (column, what, unit) in measures.items():
        cells = [
            [
                mean(column[rated.of(kind=kind, layer=layer, origin=SINGULAR)])
                if rated.of(kind=kind, layer=layer, origin=SINGULAR).size
                else mean(np.array([np.nan]))
                for layer in range(n_layers)
            ]
            for kind in kinds
        ]
        variables |= interval_variables(
            name, stacked([stacked(row) for row in cells]), "kind layer", f"{what}, at the better end", unit
        )
        rotated = [
            [_nanmean(column[rated.of(kind=kind, layer=layer, origin=ROTATED)]) for layer in range(n_layers)]
            for kind in kinds
        ]
        variables[f"{name}_rotated"] = quantity(
            np.array(rotated), "kind layer", f"{what}, of rotations", unit
        )
    best, frequency = rated.best[:, place], measures["frequency"][0]
    follows = [
        _spearman(best[rated.of(kind=kind, origin=SINGULAR)], frequency[rated.of(kind=kind, origin=SINGULAR)])
        for kind in kinds
    ]
    variables["follows_frequency"] = quantity(
        np.array(follows), "kind", "rank correlation of coherence with the tokens' mean log count"
    )
    return xr.Dataset(variables)


def _measures(tokens: np.ndarray, vocabulary: xr.Dataset) -> dict[str, tuple[np.ndarray, str, str]]:
    """By name, a number for each direction from the tokens of one end, what it is, and its unit."""
    parts, counts = vocabulary.part_of_speech.values, vocabulary.occurrences.values
    seen = np.full(len(counts), np.nan)
    seen[counts > 0] = np.log(counts[counts > 0])
    return {
        "fragments": (
            _row_means(vocabulary.fragment.values[tokens]),
            "share of tokens that continue a word",
            "1",
        ),
        "purity": (
            np.array([share_of_commonest(parts[row]) for row in tokens]),
            "share of the commonest part of speech among known tokens",
            "1",
        ),
        "frequency": (_row_means(seen[tokens]), "mean log count of tokens that occur in the texts", "nat"),
    }


def _row_means(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    n = known.sum(axis=1)
    return np.where(n >= 3, np.where(known, values, 0).sum(axis=1) / np.maximum(n, 1), np.nan)


def _nanmean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    return rank_correlation(a[known], b[known]) if known.sum() >= 10 else float("nan")
