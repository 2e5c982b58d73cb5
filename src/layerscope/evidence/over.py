"""From samples to quantities with intervals: the units that are independent are named once, then every mean,
median, difference and test is over them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import groups_along, number_coordinate
from layerscope.evidence.families import with_p
from layerscope.evidence.groups import per_unit
from layerscope.evidence.naming import cell_by_cell, name_of
from layerscope.evidence.quantities import contrast_variables, interval_variables
from layerscope.evidence.resampled import (
    Dims,
    Resampled,
    ends_together,
    interval_of,
    kept_draws,
    p_above,
)
from layerscope.evidence.settings import Intervals
from layerscope.maths.arrays import divide
from layerscope.maths.bootstrap import (
    Interval,
    bootstrap_difference,
    bootstrap_mean,
    means_of_resamples,
    resampled_counts,
)
from layerscope.maths.max_statistic import compare_pairs
from layerscope.maths.permutation import (
    least_p_of_signs,
    least_p_of_splits,
    pairwise_contrasts,
    sign_flip_p,
)
from layerscope.maths.quantiles import quantile_draws
from layerscope.maths.ratios import bootstrap_ratio, known_mean, ratio_draws
from layerscope.results.escaping import restored
from layerscope.results.schema import quantity


class Over:
    """Samples, the units they come from, and how these are resampled.

    Every interval that it writes holds its value, and carries in the attribute `over` what its units are.

    Args:
        samples: what stages measured.
        settings: seed, level and resamples.
        rows: a dimension each of whose places is a unit ("prompt"), or a coordinate that names the unit of every
            row ("token_passage"): passages, not tokens, are independent. The unit is called by its last word.
    """

    def __init__(self, samples: xr.Dataset, settings: Intervals, *, rows: str) -> None:
        self.settings = settings
        self.row = str(samples[rows].dims[0])
        self.unit = rows.rpartition("_")[2]
        self.places = groups_along(samples, rows)
        self.names = list(self.places)
        # Resamples that are computed with draw units by rank of their names, whichever way they are averaged.
        self._numbers = np.unique(samples[rows].values, return_inverse=True)[1]
        self._ranks = np.array([self._numbers[where[0]] for where in self.places.values()], dtype=int)

    @property
    def n(self) -> int:
        """How many units there are."""
        return len(self.names)

    @property
    def coordinate(self) -> dict[str, xr.Variable]:
        """The names of the units, for results that keep a value of each."""
        return {self.unit: xr.Variable((self.unit,), np.array(self.names), {"long_name": self.unit})}

    def units(self, values: xr.DataArray) -> xr.DataArray:
        """Mean over the rows of each unit that have a value [unit ...]; NaN where none has."""
        exact = values.astype(np.float64)
        if self.unit in values.dims:
            return exact
        rows = exact.transpose(self.row, ...)
        means = per_unit(rows.values, self.places.values())
        kept = {dim: rows[dim] for dim in rows.dims[1:] if dim in rows.coords}
        return xr.DataArray(
            means, dims=(self.unit, *rows.dims[1:]), coords=kept, name=values.name, attrs=values.attrs
        )

    def drawn(self) -> np.ndarray:
        """How often each unit is drawn in each resample [draw unit], units in rising order of their names."""
        return resampled_counts(self.n, seed=self.settings.seed, resamples=self.settings.resamples)

    # -- quantities ------------------------------------------------------------------------------------

    def mean(self, values: xr.DataArray, *, together: Dims = (), draws: bool = False) -> xr.Dataset:
        """Mean over units with its interval: `name`, `name_low`, `name_high`, `name_n`.

        Args:
            values: a named array over rows or units.
            together: dimensions over which the best will be picked: adds `name_joint_low` and `name_joint_high`,
                which hold for all their cells at once.
            draws: also keep bootstrap replicates of the whole curve, `name_draws`.
        """
        units = self.units(values).transpose(self.unit, ...)
        how = self.settings
        interval = bootstrap_mean(units.values, seed=how.seed, level=how.level, resamples=how.resamples)
        found = self._variables(units, interval)
        if (together or draws) and self.n:
            found |= self._further(self.means(values), interval, together, draws)
        return self._dataset(units, found)

    def quantity(
        self,
        found: Resampled,
        *,
        together: Dims = (),
        above: float | None = None,
        p: str = "",
        draws: bool = False,
    ) -> xr.Dataset:
        """A resampled statistic with its interval, as `mean` writes them.

        Args:
            found: with a named value.
            together, draws: as in `mean`.
            above: also test whether values lie above this, one-sided, by the largest t over `together`:
                `name_p_adjusted`, with the smallest that was possible, `name_least_p`; unknown below six units.
            p: another name for that p.
        """
        interval = interval_of(found, units=self.n, level=self.settings.level)
        variables = self._variables(found.value, interval) | self._further(found, interval, together, draws)
        if above is not None:
            variables |= p_above(found, above, together, p)
        return self._dataset(found.value, variables)

    def means(self, values: xr.DataArray) -> Resampled:
        """Mean over units of the data and of each resample, to compute with; NaN is a missing value."""
        units = self.units(values).transpose(self.unit, ...)
        return Resampled.like(
            units.isel({self.unit: 0}, drop=True),
            means_of_resamples(units.values, np.ones((1, self.n)))[0],
            means_of_resamples(units.values, self.drawn()[:, self._ranks]),
            (~np.isnan(units.values)).sum(axis=0),
        )

    def medians(self, values: xr.DataArray, weights: np.ndarray | None = None) -> Resampled:
        """Median over all rows, whole units being resampled; weights make groups of rows comparable."""
        rows, how = values.transpose(self.row, ...), self.settings
        found = quantile_draws(
            rows.values,
            self._numbers,
            units=self.n,
            seed=how.seed,
            weights=weights,
            resamples=how.resamples,
        )
        return Resampled.like(rows.isel({self.row: 0}, drop=True), found.value, found.draws, found.present)

    def sums(self, values: xr.DataArray) -> Resampled:
        """Sums over all rows, of the data and of each resample of whole units, to compute with; NaN counts nothing.

        Args:
            values: over rows; or one row for each unit, where the sums of units are known already.
        """
        summed = self.unit in values.dims
        rows = values.transpose(self.unit if summed else self.row, ...)
        like = rows.isel({rows.dims[0]: 0}, drop=True)
        flat = np.nan_to_num(rows.values.astype(np.float64)).reshape(len(rows), -1)
        by_unit = np.zeros((self.n, flat.shape[1]))
        np.add.at(by_unit, self._ranks if summed else self._numbers, flat)
        return Resampled.like(
            like,
            by_unit.sum(axis=0).reshape(like.shape),
            (self.drawn() @ by_unit).reshape(-1, *like.shape),
            np.full(like.shape, self.n),
        )

    def row_means(self, values: xr.DataArray) -> Resampled:
        """Mean over all rows that have a value, which weigh alike; whole units are resampled."""
        total, known = self.sums(values), self.sums(cell_by_cell(np.isfinite, values))
        mean, draws = (
            cell_by_cell(divide, getattr(total, of), getattr(known, of)) for of in ("value", "draws")
        )
        return Resampled(mean.rename(values.name).assign_attrs(values.attrs), draws, total.n)

    def ratio(
        self,
        above: xr.DataArray,
        below: xr.DataArray,
        *,
        mean_over: str = "",
        together: Dims = (),
        draws: bool = False,
    ) -> xr.Dataset:
        """Σ above / Σ below over units with its interval, as `mean` writes them.

        Args:
            above: a named array over rows or units: its name, long name and unit are those of the ratio. What a
                unit lacks, it adds nothing to: units weigh by what they hold.
            below: likewise, over all or some of its dimensions.
            mean_over: a dimension over whose ratios the mean is taken, those without one left out.
            together, draws: as in `mean`.
        """
        last = (mean_over,) if mean_over else ()
        up = self.units(above).fillna(0).transpose(self.unit, ..., *last)
        down = self.units(below).fillna(0).broadcast_like(up).transpose(*up.dims)
        how = self.settings
        interval = bootstrap_ratio(
            up.values,
            down.values,
            seed=how.seed,
            level=how.level,
            resamples=how.resamples,
            mean_of_last=bool(mean_over),
        )
        like = up.isel(dict.fromkeys((self.unit, *last), 0), drop=True)
        found = self._variables(like, interval)
        if (together or draws) and self.n > 1:
            again = ratio_draws(up.values, down.values, self.drawn())
            again = known_mean(again) if mean_over else again
            whole = Resampled.like(like, interval.value, again, interval.n)
            found |= self._further(whole, interval, together, draws)
        return self._dataset(like, found)

    def difference(self, values: xr.DataArray, other: Over, others: xr.DataArray) -> xr.Dataset:
        """Mean over these units less the mean over others, both resampled on their own, under the name of `values`.

        `name_n` is the smaller number, `name_n_first` and `name_n_second` are both.

        Args:
            values: a named array over these rows or units.
            other: the other units.
            others: likewise over them, over the same cells.
        """
        own, there, how = self.units(values), other.units(others), self.settings
        own, there = own.transpose(self.unit, ...), there.transpose(other.unit, ...)
        interval = bootstrap_difference(
            own.values, there.values, seed=how.seed, level=how.level, resamples=how.resamples
        )
        found = self._variables(own, interval)
        for which, units in (("first", own), ("second", there)):
            found[f"{name_of(own)}_n_{which}"] = quantity(
                (~np.isnan(units.values)).sum(axis=0),
                [str(dim) for dim in own.dims[1:]],
                f"{own.attrs['long_name']}, units of the {which} group",
            )
        return self._dataset(own, found)

    # -- tests -----------------------------------------------------------------------------------------

    def paired(
        self,
        differences: xr.DataArray,
        *,
        together: Dims = (),
        p: str = "",
        permutations: int | None = None,
        draws: bool = False,
    ) -> xr.Dataset:
        """Mean of differences within units, and p by flipping signs of whole units, adjusted for all cells together.

        Adds `name_p_adjusted` (largest statistic over the cells), or `p` where it has a name of its own, and
        `name_least_p`, the smallest that was possible. `together` and `draws` are those of `mean`.
        """
        units, seed = self.units(differences).transpose(self.unit, ...), self.settings.seed
        found = self.mean(differences, together=together, draws=draws)
        name, cells = str(differences.name), units.dims[1:]
        if cells:
            drawn = permutations or 4095
            seen = compare_pairs(units.values, seed=seed, permutations=drawn)
            n = np.asarray(np.where(np.isnan(units.values).any(axis=0), 0, self.n))
            drawn += 1  # counts all deals of signs where they are one more than asked for
        else:
            drawn = permutations or 9999
            known, n_known = sign_flip_p(units.values, seed=seed, resamples=drawn)
            seen, n = np.asarray(known), np.asarray(n_known)
        least = np.vectorize(lambda units: least_p_of_signs(int(units), resamples=drawn), otypes=[float])(n)
        return found.assign(with_p(name, cells, seen, least, f"p by flipping signs of whole {self.unit}s", p))

    def contrasts(self, values: xr.DataArray, groups: Iterable[object], *, name: str = "") -> xr.Dataset:
        """Every pair of groups of units: difference, interval, p by permutation, adjusted by Holm over the pairs.

        Args:
            values: one for each unit, named: its long name and unit are those of the differences.
            groups: the group of each unit, in stored form.
            name: before the variables' names and the dimension, where a result has several such families.
        """
        units, how = self.units(values), self.settings
        labels = [restored(str(group)) for group in groups]
        pairs = pairwise_contrasts(
            units.values, labels, seed=how.seed, level=how.level, resamples=how.resamples
        )
        found = contrast_variables(pairs, str(values.attrs["long_name"]), str(values.attrs["units"]))
        least = np.array([least_p_of_splits(pair.n_a, pair.n_b) for pair in pairs], dtype=float)
        several = int(np.isfinite(found.p.values).sum())
        found["difference"].attrs["over"] = self.unit
        found = found.assign(
            difference_least_p=quantity(least, "contrast", "smallest p that was possible"),
            difference_least_p_adjusted=quantity(
                np.minimum(1, least * several), "contrast", "smallest adjusted p that was possible"
            ),
            difference_n_first=quantity(
                [p.n_a for p in pairs], "contrast", f"{self.unit}s of the first group"
            ),
            difference_n_second=quantity(
                [p.n_b for p in pairs], "contrast", f"{self.unit}s of the second group"
            ),
        )
        return found.rename({str(one): f"{name}_{one}" for one in found.variables}) if name else found

    # -- parts -----------------------------------------------------------------------------------------

    def _variables(self, like: xr.DataArray, interval: Interval) -> dict[str, xr.Variable]:
        dims = [str(dim) for dim in like.dims if dim != self.unit]
        name, long_name, units = name_of(like), str(like.attrs["long_name"]), str(like.attrs["units"])
        found = interval_variables(name, interval.holding_its_value(), dims, long_name, units)
        found[name].attrs["over"] = self.unit
        return found

    def _further(
        self, found: Resampled, interval: Interval, together: Dims, draws: bool
    ) -> dict[str, xr.Variable]:
        """Ends that hold for all cells along some dimensions at once, and resamples of the whole curve."""
        joint = ends_together(found, interval, together, level=self.settings.level) if together else {}
        return joint | (kept_draws(found, self.unit) if draws else {})

    def _dataset(self, like: xr.DataArray, variables: dict[str, xr.Variable]) -> xr.Dataset:
        coords: dict[str, Any] = {
            str(dim): like[dim].variable for dim in like.dims if dim in like.coords and dim != self.unit
        }
        count = next((v.sizes["draw"] for v in variables.values() if "draw" in v.dims), 0)
        if count:
            coords["draw"] = number_coordinate(range(count), "draw", "bootstrap replicate")
        return xr.Dataset(variables, coords=coords)
