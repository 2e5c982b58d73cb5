"""Maps of what cutting does over sets of keys and layers, with intervals, corrected p and their control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.evidence.groups import per_unit
from layerscope.evidence.quantities import interval_variables
from layerscope.maths.arrays import divide
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.max_statistic import compare_pairs
from layerscope.maths.ratios import bootstrap_ratio
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.experiments.attention_knockout import Settings

LEVEL = 0.05
_LEAST_MASS = 1e-4
"""Mean attention below which no effect is divided by it."""

_SAID = {"": "actual next token", "prompt_": "answer"}


@dataclass(frozen=True, eq=False)
class Units:
    """Means over what was kept of each passage or prompt, NaN where a layer has no such edge.

    Attributes:
        prefix: of names of variables.
        edges: name of the dimension of sets.
        divergence, loss: [unit edges fate window layer].
        mass, control, control_mass: [unit edges window layer].
        compared, compared_mass: of the first fate, over the targets that have a control; likewise.
    """

    prefix: str
    edges: str
    divergence: np.ndarray
    loss: np.ndarray
    mass: np.ndarray
    control: np.ndarray
    control_mass: np.ndarray
    compared: np.ndarray
    compared_mass: np.ndarray

    @classmethod
    def of(cls, kept: xr.Dataset, rows: list[np.ndarray], prefix: str, edges: str) -> Units:
        def values(name: str) -> np.ndarray:
            found = kept[prefix + name].values.astype(np.float64)
            if name.startswith("control"):  # [target edges window sample layer]: samples first
                found = per_unit(np.moveaxis(found, 3, 0), [np.arange(found.shape[3])])[0]
            return found

        names = ("divergence", "loss", "mass", "control_divergence", "control_mass")
        each = {name: values(name) for name in names}
        without = np.isnan(each["control_divergence"])
        beside = (each["divergence"][:, :, 0], each["mass"])
        compared = [per_unit(np.where(without, np.nan, one), rows) for one in beside]
        return cls(prefix, edges, *(per_unit(each[name], rows) for name in names), *compared)


def how_of(settings: Settings) -> dict[str, Any]:
    return {"seed": settings.seed, "level": settings.level, "resamples": settings.resamples}


# -- maps -----------------------------------------------------------------------------------------------


def maps(units: Units, settings: Settings) -> dict[str, xr.Variable]:
    """What each cut costs, beside random cuts and the attention that was cut, with p over the whole map."""
    found = _costs(units, settings) | _beside_random_keys(units, settings) | _attention_cut(units, settings)
    found |= _cost_of_attention(units, settings) | _told_apart(units, settings)
    return {f"{units.prefix}{name}": variable for name, variable in found.items()}


def _by_fate(units: Units) -> str:
    return f"{units.edges} fate window layer"


def _by_cut(units: Units) -> str:
    return f"{units.edges} window layer"


def _costs(units: Units, settings: Settings) -> dict[str, xr.Variable]:
    how = how_of(settings)
    return interval_variables(
        "effect",
        bootstrap_mean(units.divergence, **how),
        _by_fate(units),
        "divergence that cutting brings about",
        "nat",
    ) | interval_variables(
        "lost",
        bootstrap_mean(units.loss, **how),
        _by_fate(units),
        f"log-probability of the {_SAID[units.prefix]} that is lost",
        "nat",
    )


def _beside_random_keys(units: Units, settings: Settings) -> dict[str, xr.Variable]:
    how, dims = how_of(settings), _by_cut(units)
    return (
        interval_variables(
            "control_effect",
            bootstrap_mean(units.control, **how),
            dims,
            "divergence with keys cut at random",
            "nat",
        )
        | interval_variables(
            "excess",
            bootstrap_mean(units.compared - units.control, **how),
            dims,
            "divergence beyond that of keys cut at random",
            "nat",
        )
        | interval_variables(
            "relative_excess",
            bootstrap_mean(_relative(units), **how),
            dims,
            "divergence less that of keys cut at random, over the sum of both",
        )
    )


def _attention_cut(units: Units, settings: Settings) -> dict[str, xr.Variable]:
    kinds = (
        ("removed", units.mass, "attention that was cut, mean over heads"),
        (
            "compared_removed",
            units.compared_mass,
            "attention that was cut where there are random keys to compare with, mean over heads",
        ),
        ("control_removed", units.control_mass, "attention that was cut at random, mean over heads"),
    )
    found: dict[str, xr.Variable] = {}
    for name, mass, said in kinds:
        found |= interval_variables(name, bootstrap_mean(mass, **how_of(settings)), _by_cut(units), said)
    return found


def _cost_of_attention(units: Units, settings: Settings) -> dict[str, xr.Variable]:
    """The effect for each unit of attention, where enough was cut to divide by."""
    known = ~np.isnan(units.divergence)
    mass = np.broadcast_to(units.mass[:, :, None], known.shape)
    enough = known & (np.nan_to_num(mass).mean(axis=0) >= _LEAST_MASS)
    ratio = bootstrap_ratio(
        np.where(enough, units.divergence, 0), np.where(enough, mass, 0), **how_of(settings)
    )
    said = "divergence over the attention that was cut"
    return interval_variables("effect_per_mass", ratio, _by_fate(units), said, "nat")


def _told_apart(units: Units, settings: Settings) -> dict[str, xr.Variable]:
    p = compare_pairs(units.loss, seed=settings.seed)
    beside_random = compare_pairs(_with_nothing(_relative(units)), seed=settings.seed)
    said = "p of the lost log-probability, adjusted for the whole map"
    return {
        "lost_p": quantity(p, _by_fate(units), said),
        "relative_excess_p": quantity(
            beside_random, _by_cut(units), "p of the relative excess, adjusted for the whole map"
        ),
    } | _agreement(units, p, _by_cut(units))


def _relative(units: Units) -> np.ndarray:
    """(D − C) / (D + C), from −1 to 1: divergences of one cell differ by orders of magnitude between texts.

    0 where neither moves anything; NaN where there is no control.
    """
    both = units.compared + units.control
    return np.asarray(np.where(both == 0, 0.0, divide(units.compared - units.control, both)))


def _with_nothing(excess: np.ndarray) -> np.ndarray:
    """Units without a control count as no excess, where at least half of the units have one.

    No sign makes 0 larger, so the test stays valid; it finds less.
    """
    known = ~np.isnan(excess)
    enough = known.mean(axis=0) >= 0.5
    return np.where(known | ~enough, excess, 0.0)


def _agreement(units: Units, p: np.ndarray, dims: str) -> dict[str, xr.Variable]:
    """How far the fates agree: smallest over largest mean divergence, and how many tell the same loss."""
    mean = per_unit(units.divergence, [np.arange(len(units.divergence))])[0]  # [edges fate window layer]
    known = ~np.isnan(mean)
    smallest = np.where(known, mean, np.inf).min(axis=1)
    largest = np.where(known, mean, -np.inf).max(axis=1)
    several = known.sum(axis=1) > 1
    share = divide(np.where(several, smallest, 0), np.where(several, largest, 0))
    sign = np.sign(per_unit(units.loss, [np.arange(len(units.loss))])[0])
    told = (np.nan_to_num(p, nan=1) < LEVEL) & (sign == sign[:, :1])
    return {
        "agreement": quantity(
            share, dims, "smallest over largest divergence by where the removed attention goes"
        ),
        "fates_told": quantity(
            told.sum(axis=1),
            dims,
            "ways to place the removed attention by which the loss is significant, with the sign of the first",
        ),
        "fates_here": quantity(
            known.sum(axis=1), dims, "ways to place the removed attention that are possible here"
        ),
    }
