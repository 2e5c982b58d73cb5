"""A statistic together with the same of every resample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from layerscope.evidence.naming import named


@dataclass(frozen=True, eq=False)
class Resampled:
    """A statistic of the data, and the same of every resample of the units.

    Sums, differences and ratios of several are taken cell by cell and draw by draw, which is right because all
    resamples of one `Over` draw the same units.

    Attributes:
        value: of the data.
        draws: [draw, ...], over the dimensions of `value`.
        n: units that have a value, in each cell.
        units: how many were resampled, where these are fewer than those of the `Over`.
    """

    value: xr.DataArray
    draws: xr.DataArray
    n: xr.DataArray
    units: int | None = None

    def named(self, name: str, long_name: str, units: str = "1") -> Resampled:
        """The same under a name."""
        return replace(self, value=named(self.value, name, long_name, units))

    def map(self, formula: Callable[[xr.DataArray], xr.DataArray]) -> Resampled:
        """A formula of the data and of each resample; cells that it joins rest on the fewest units among them."""
        value, draws = formula(self.value), formula(self.draws)
        lost = [dim for dim in self.n.dims if dim not in value.dims]
        return Resampled(value, draws, self.n.min(lost) if lost else self.n, self.units)

    def __sub__(self, other: Resampled) -> Resampled:
        fewer = xr.apply_ufunc(np.minimum, self.n, other.n)
        return Resampled(self.value - other.value, self.draws - other.draws, fewer, self.units)
