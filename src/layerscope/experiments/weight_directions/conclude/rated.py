"""Which directions count as coherent, by every rater, and rates of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.experiments.weight_directions.items.power import above, best_end, threshold
from layerscope.experiments.weight_directions.settings import LANGUAGE, RATERS, SIDES, WRITES, Settings
from layerscope.maths.trend import rate_error
from layerscope.results.schema import quantity, read_json

ALL_RATERS = (*RATERS, LANGUAGE)


class Rated:
    """Rows of directions with what each rater says: coherent, not, or NaN where it cannot tell.

    Attributes:
        rows: the directions, as measured.
        hits: [direction rater].
        matched: likewise, of other tokens that occur about as often; NaN for controls.
        best: [direction rater], the coherence of the better end.
        chance: by side of the vocabulary ("reads", "writes"), the rate of random directions [rater].
        thresholds: likewise, the coherence above which a direction counts.
    """

    def __init__(
        self,
        rows: xr.Dataset,
        random: xr.Dataset,
        power: xr.Dataset,
        settings: Settings,
        answers: xr.Dataset,
    ) -> None:
        self.rows, self.best, matched = rows, best_end(rows), best_end(rows, "matched_coherence")
        of_random = best_end(random)
        sides = np.array(
            ["writes" if kind in WRITES else "reads" for kind in rows.direction_kind.values.tolist()]
        )
        self.hits = np.full((rows.sizes["direction"], len(ALL_RATERS)), np.nan)
        self.matched = self.hits.copy()
        self.thresholds, self.chance = {}, {}
        for side in SIDES:
            chosen = of_random[random.direction_kind.values == side]
            limit = threshold(side, random, power, settings)
            here = sides == side
            self.hits[here, : len(RATERS)] = above(self.best[here], limit)
            self.matched[here, : len(RATERS)] = above(matched[here], limit)
            chance = means(above(chosen, limit))
            self.thresholds[side] = limit
            self.chance[side] = np.array([*chance, _asked(answers, side, np.array([-1])).mean()])
        self._take_answers(answers)

    def _take_answers(self, answers: xr.Dataset) -> None:
        if "asked" in answers.sizes:
            real = answers.asked_layer.values >= 0
            self.hits[answers.asked_row.values[real], -1] = answers.counts.values[real].any(axis=1)

    def of(self, **wanted: Any) -> np.ndarray:
        """Row numbers that fit: kind, layer, origin, matrix."""
        names = {
            "kind": "direction_kind",
            "layer": "direction_layer",
            "matrix": "direction_matrix",
            "origin": "origin",
        }
        fits = np.ones(self.rows.sizes["direction"], bool)
        for name, value in wanted.items():
            fits &= self.rows[names[name]].values == value
        return np.flatnonzero(fits)


def _asked(answers: xr.Dataset, side: str, layers: np.ndarray) -> np.ndarray:
    if "asked" not in answers.sizes:
        return np.array([np.nan])
    here = np.isin(answers.asked_layer.values, layers) & (answers.asked_kind.values == side)
    found = answers.counts.values[here].any(axis=1).astype(float)
    return found if found.size else np.array([np.nan])


def means(columns: np.ndarray) -> list[float]:
    """Mean of each column over what is known in it."""
    return [
        float(column[np.isfinite(column)].mean()) if np.isfinite(column).any() else np.nan
        for column in columns.T
    ]


def counted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits and rated rows, by rater."""
    return np.nansum(values, axis=0).astype(np.int64), np.isfinite(values).sum(axis=0)


def rate_variables(
    name: str, hits: np.ndarray, n: np.ndarray, dims: str, what: str, *, less: np.ndarray | float = 0.0
) -> dict[str, xr.Variable]:
    """A rate (less that of chance) with its 95 % interval, standard error and number of directions."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.where(n > 0, hits / np.maximum(n, 1), np.nan) - less
    error = np.where(n > 0, rate_error(hits, n), np.nan)
    low = np.maximum(rate - 1.96 * error, 0.0 - less)  # -less would print as -0
    high = np.minimum(rate + 1.96 * error, 1.0 - less)
    return {
        name: quantity(rate, dims, what),
        f"{name}_low": quantity(low, dims, f"{what}, lower end"),
        f"{name}_high": quantity(high, dims, f"{what}, upper end"),
        f"{name}_error": quantity(error, dims, f"{what}, standard error"),
        f"{name}_n": quantity(n, dims, f"{what}, directions rated"),
    }


def may_rate(result: xr.Dataset) -> bool:
    """Whether rates are reported: the rater was chosen by the user, or sees known sets. Old results were not asked."""
    return bool(read_json(result, "rater_may_rate", True))
