"""A statistic together with the same of every resample, and what follows from both: ends, p, whole curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.curves import REPLICATES
from layerscope.evidence.families import with_p
from layerscope.evidence.naming import name_of, named
from layerscope.maths.bootstrap import FEWEST_UNITS, Interval, interval_of_draws
from layerscope.maths.simultaneous import largest_t_interval, largest_t_p
from layerscope.results.schema import quantity

Dims = str | tuple[str, ...]


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

    @classmethod
    def like(cls, like: xr.DataArray, value: Any, draws: Any, n: Any) -> Resampled:
        """Plain arrays over the dimensions of another array, whose name they take."""
        coords = {dim: like[dim] for dim in like.dims if dim in like.coords}
        return cls(
            xr.DataArray(np.asarray(value), coords, like.dims, name=like.name, attrs=like.attrs),
            xr.DataArray(draws, coords, ("draw", *like.dims)),
            xr.DataArray(np.asarray(n), coords, like.dims),
        )

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


def interval_of(found: Resampled, *, units: int, level: float) -> Interval:
    """Its interval cell by cell; none where fewer than two units have a value."""
    value, dims = found.value.values, found.value.dims
    draws, n = found.draws.transpose("draw", *dims).values, _counts(found).values
    interval = interval_of_draws(
        np.asarray(value), draws, units=found.units if found.units is not None else units, level=level
    )
    low, high = (np.asarray(np.where(n < 2, np.nan, end)) for end in (interval.low, interval.high))
    return Interval(interval.value, low, high, n)


def ends_together(
    found: Resampled, interval: Interval, together: Dims, *, level: float
) -> dict[str, xr.Variable]:
    """`name_joint_low` and `name_joint_high`: for all cells along some dimensions at once.

    They never lie inside those of one cell, and are unknown where that has none.
    """

    def ends(value: np.ndarray, draws: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        joint = largest_t_interval(value, draws, units=n, level=level)
        return joint.low, joint.high

    name, like, alone = name_of(found.value), found.value, interval.holding_its_value()
    low, high = _by_family(found, together, ends, results=2)
    return {
        f"{name}_joint_{end}": quantity(
            np.where(np.isnan(one), np.nan, pick(whole, one)),
            map(str, like.dims),
            f"{like.attrs['long_name']}, {end} end for all {_plural(together)} at once",
            str(like.attrs["units"]),
        )
        for end, pick, whole, one in (("low", np.fmin, low, alone.low), ("high", np.fmax, high, alone.high))
    }


def p_above(found: Resampled, nothing: float, together: Dims, called: str) -> dict[str, xr.Variable]:
    """One-sided p that values lie above `nothing`, by the largest t along some dimensions; see `Over.quantity`."""

    def p_of(value: np.ndarray, draws: np.ndarray, n: np.ndarray) -> np.ndarray:
        return np.where(
            n < FEWEST_UNITS, np.nan, largest_t_p(np.asarray(value), draws, units=n, nothing=nothing)
        )

    (p,) = _by_family(found, together, p_of)
    least = np.where(np.isnan(p), np.nan, 1 / (1 + found.draws.sizes["draw"]))
    what = f"one-sided p, adjusted for all {_plural(together)}" if together else "one-sided p"
    return with_p(name_of(found.value), found.value.dims, p, least, what, called)


def kept_draws(found: Resampled, unit: str) -> dict[str, xr.Variable]:
    """`name_draws`: bootstrap replicates of the whole curve, for what is resampled together with other curves."""
    name, like = name_of(found.value), found.value
    draws = found.draws.transpose("draw", *like.dims)[:REPLICATES]
    long_name = f"{like.attrs['long_name']}, resamples of whole {unit}s"
    return {
        f"{name}_draws": quantity(draws.values, map(str, draws.dims), long_name, str(like.attrs["units"]))
    }


def _by_family(
    found: Resampled, together: Dims, formula: Callable[..., Any], *, results: int = 1
) -> tuple[np.ndarray, ...]:
    """A formula of value, draws and n for each family of cells, results laid out as the value is."""
    family = [together] if isinstance(together, str) else list(together)
    made = xr.apply_ufunc(
        formula,
        found.value,
        found.draws,
        _counts(found),
        input_core_dims=[family, ["draw", *family], family],
        output_core_dims=[family] * results,
        vectorize=True,
    )
    arrays = made if isinstance(made, tuple) else (made,)
    return tuple(one.transpose(*found.value.dims).values for one in arrays)


def _counts(found: Resampled) -> xr.DataArray:
    return found.n.broadcast_like(found.value).transpose(*found.value.dims)


def _plural(together: Dims) -> str:
    return " and ".join(f"{one}s" for one in ((together,) if isinstance(together, str) else together))
