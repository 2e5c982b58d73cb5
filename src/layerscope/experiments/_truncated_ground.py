"""The kept similarities, whose token is whose, and how intervals are made: what all summaries rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.experiments._summaries import interval_variables
from layerscope.maths.bootstrap import Interval, interval_of_draws
from layerscope.maths.quantiles import QuantileDraws, quantile_draws

if TYPE_CHECKING:
    from layerscope.experiments.truncated_context import Settings


class Ground:
    """The kept numbers, whose token is whose, and how intervals are made."""

    def __init__(self, cut: xr.Dataset, documents: np.ndarray, units: int, settings: Settings) -> None:
        self.cut, self.documents, self.units, self.settings = cut, documents, units, settings

    def draws(self, values: np.ndarray, weights: np.ndarray | None = None) -> QuantileDraws:
        """The median over tokens, and its resamples over passages."""
        s = self.settings
        return quantile_draws(
            values, self.documents, units=self.units, seed=s.seed, weights=weights, resamples=s.resamples
        )

    def interval(self, value: Any, draws: np.ndarray, level: float | None = None) -> Interval:
        """The interval of a number that was computed from draws."""
        level = self.settings.level if level is None else level
        return interval_of_draws(np.asarray(value), draws, units=self.units, level=level)

    def similarity(self, length: int) -> np.ndarray:
        """[token depth] at one context length."""
        return self.cut.similarity.sel(kept_tokens=length).values


def bounded(
    name: str, interval: Interval, dims: str, long_name: str, units: str = "1"
) -> dict[str, xr.Variable]:
    """An interval that holds its value, as variables."""
    low = np.asarray(np.minimum(interval.low, interval.value))
    high = np.asarray(np.maximum(interval.high, interval.value))
    return interval_variables(name, Interval(interval.value, low, high, interval.n), dims, long_name, units)
