"""Numbers that the claims of posts rest on, read from results: stated ones, means over units, statistics of curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from layerscope.atlas.verdicts import LEVEL, CannotBeDecidedError, Estimate
from layerscope.evidence import level_of
from layerscope.maths.bootstrap import (
    FEWEST_UNITS,
    Interval,
    bootstrap_difference,
    bootstrap_mean,
    interval_of_draws,
)
from layerscope.maths.interval_difference import difference_of_intervals
from layerscope.results.escaping import restored

DEPTH = "of depth"
"""The unit of what was counted in layers and is given as a fraction of depth."""


def stated(
    result: xr.Dataset,
    name: str,
    *,
    times: float = 1.0,
    unit: str = "1",
    units: str = "prompts",
    **labels: object,
) -> Estimate:
    """A number that the result states, with its interval: `name`, `name_low`, `name_high`.

    Args:
        times: a factor on value and ends: −1 turns a difference round, 1 / layers makes a fraction of depth.
        labels: where in the result; `CannotBeDecidedError` where it has no such place.
    """
    missing = [f"{value}" for key, value in labels.items() if value not in result[key].values.tolist()]
    if missing:
        raise CannotBeDecidedError(f"no {', '.join(missing)} in this result")
    here = result.sel(labels)
    ends = sorted(times * float(here[f"{name}_{end}"]) for end in ("low", "high"))
    n = int(here[f"{name}_n"]) if f"{name}_n" in here else None
    return Estimate(times * float(here[name]), ends[0], ends[1], unit, n, units, level_of(result))


def contrast(result: xr.Dataset, first: str, second: str, *, times: float = 1.0, unit: str = "1") -> Estimate:
    """First category less second, of the family that `Over.contrasts` wrote, whichever way round it stands there."""
    pairs = [
        (restored(str(one)), restored(str(other)))
        for one, other in zip(result["contrast_first"].values, result["contrast_second"].values, strict=True)
    ]
    for place, pair in enumerate(pairs):
        if pair in ((first, second), (second, first)):
            sign = times if pair == (first, second) else -times
            here = result.isel(contrast=place)
            ends = sorted(sign * float(here[f"difference_{end}"]) for end in ("low", "high"))
            n = int(min(here["difference_n_first"], here["difference_n_second"]))
            return Estimate(
                sign * float(here["difference"]), ends[0], ends[1], unit, n, level=level_of(result)
            )
    raise CannotBeDecidedError(f"no prompts of both {first} and {second} could be compared")


def mean_over(values: np.ndarray, *, unit: str = "1", units: str = "prompts") -> Estimate:
    """Mean over units [unit], NaN being a missing one; fewer than six give no interval."""
    known = values[np.isfinite(values)]
    if known.size < FEWEST_UNITS:
        raise CannotBeDecidedError(f"{known.size} {units}, {FEWEST_UNITS} are needed")
    return _of(bootstrap_mean(known, seed=0, level=LEVEL), unit, units, known.size)


def mean_difference(
    first: np.ndarray, second: np.ndarray, *, unit: str = "1", units: str = "prompts"
) -> Estimate:
    """Mean over the first units less mean over the second ones, each resampled alone."""
    first, second = first[np.isfinite(first)], second[np.isfinite(second)]
    if min(first.size, second.size) < FEWEST_UNITS:
        raise CannotBeDecidedError(
            f"{first.size} against {second.size} {units}, {FEWEST_UNITS} each are needed"
        )
    found = bootstrap_difference(first, second, seed=0, level=LEVEL)
    return _of(found, unit, units, min(first.size, second.size))


def of_curve(
    result: xr.Dataset,
    name: str,
    formula: Callable[[np.ndarray], np.ndarray],
    *,
    unit: str = "1",
    units: str = "passages",
    **labels: object,
) -> Estimate:
    """A statistic of a curve over layers whose resamples were kept.

    Args:
        name: of the curve; its resamples are `name_draws`.
        formula: curves [..., place] to numbers [...].
        labels: where in the result the curve lies.
    """
    curve, draws = (result[one].sel(labels) for one in (name, f"{name}_draws"))
    along = next(dim for dim in ("layer", "depth") if dim in curve.dims)
    value = np.asarray(formula(curve.transpose(..., along).values))
    again = np.asarray(formula(draws.transpose("draw", ..., along).values))
    n = int(result[f"{name}_n"].sel(labels).max())
    return _of(interval_of_draws(value, again, units=n, level=LEVEL), unit, units, n)


def prompts_of(result: xr.Dataset, category: str) -> np.ndarray:
    """Which prompts belong to a category [prompt]."""
    chosen = np.array([restored(str(name)) == category for name in result["prompt_category"].values])
    if not chosen.any():
        raise CannotBeDecidedError(f"no prompts of {category}")
    return chosen


def layers_of(result: xr.Dataset) -> int:
    """How many layers the model has."""
    return int(result.sizes.get("layer", result.sizes.get("depth", 1) - 1))


def third(place: int) -> Callable[[np.ndarray], np.ndarray]:
    """Mean of a curve over its first (0), middle (1) or last (2) third."""

    def mean(curves: np.ndarray) -> np.ndarray:
        ends = np.linspace(0, curves.shape[-1], 4).round().astype(int)
        return np.asarray(np.nanmean(curves[..., ends[place] : ends[place + 1]], axis=-1))

    return mean


def between(result: xr.Dataset, low: float, high: float, along: str = "layer") -> Sequence[int]:
    """Places whose fraction of depth lies in [low, high): layers by their middle, depths by themselves."""
    size = result.sizes[along]
    at = (np.arange(size) + 0.5) / size if along == "layer" else np.arange(size) / (size - 1)
    return np.flatnonzero((at >= low) & (at < high)).tolist()


def _of(found: Interval, unit: str, units: str, n: int) -> Estimate:
    whole = found.holding_its_value()  # a correlation of resampled curves lies below that of the data
    value, low, high = (float(one) for one in (whole.value, whole.low, whole.high))
    return Estimate(value, low, high, unit, n, units)


def over_places(
    result: xr.Dataset, name: str, places: Sequence[int], *, units: str = "passages", **labels: object
) -> Estimate:
    """Mean of a stated curve over some layers or depths; its ends are the means of theirs.

    That is the interval of cells that all move together: where they move apart, the true one is shorter.
    """
    here = result.sel(labels)
    along = next(dim for dim in ("layer", "depth") if dim in here[name].dims)
    if not len(places):
        raise CannotBeDecidedError("this model has no such layers")
    value, low, high = (
        float(here[f"{name}{end}"].isel({along: places}).mean()) for end in ("", "_low", "_high")
    )
    n = int(here[f"{name}_n"].max()) if f"{name}_n" in here else None
    return Estimate(value, low, high, "1", n, units, level_of(result))


def less(first: Estimate, second: Estimate, *, times: float = 1.0, unit: str = "1") -> Estimate:
    """First less second from their intervals, as if they were independent; times a factor.

    Source: Zou & Donner 2008.
    """
    found = difference_of_intervals(
        (first.value, first.low, first.high), (second.value, second.low, second.high)
    )
    value, low, high = (times * one for one in found)
    n = min((one.n for one in (first, second) if one.n is not None), default=None)
    return Estimate(value, min(low, high), max(low, high), unit, n, first.units, first.level)


def largest_of(
    result: xr.Dataset, name: str, places: Sequence[int], *, units: str = "prompts", **labels: object
) -> Estimate:
    """The value of largest size among some layers, with ends that hold for all layers at once."""
    here = result.sel(labels).isel(layer=list(places))
    values = here[name].values
    if not values.size or not np.isfinite(values).any():
        raise CannotBeDecidedError(f"{name} is not known in these layers")
    at = here.isel(layer=int(np.nanargmax(np.abs(values))))
    return Estimate(
        float(at[name]),
        float(at[f"{name}_joint_low"]),
        float(at[f"{name}_joint_high"]),
        units=units,
        n=int(at[f"{name}_n"]),
        level=level_of(result),
    )


def by_unit(values: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Mean of the known values of each owner [owner], in rising order of their names."""
    _, places = np.unique(owners.astype(str), return_inverse=True)
    known = np.isfinite(values)
    sums, counts = (
        np.bincount(places, weights=w) for w in (np.where(known, values, 0.0), known.astype(float))
    )
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
