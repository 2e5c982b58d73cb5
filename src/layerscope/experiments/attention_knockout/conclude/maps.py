"""What cutting costs over sets of keys and layers, compared with random keys and with the attention that was cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from layerscope.evidence import Over, cell_by_cell, named
from layerscope.evidence.wording import ALPHA
from layerscope.maths.arrays import divide
from layerscope.results.schema import quantity

_LEAST_MASS = 1e-4
"""Mean attention below which no effect is divided by it."""


@dataclass(frozen=True, eq=False)
class Cuts:
    """Means over what was kept of each passage or prompt, NaN where a layer has no such edge.

    Attributes:
        over: passages or prompts.
        prefix: of names of variables.
        divergence, loss: [unit sets fate window layer].
        mass, control, control_mass: [unit sets window layer].
        compared, compared_mass: of the first way to place removed attention, over the targets that have a control.
    """

    over: Over
    prefix: str
    divergence: xr.DataArray
    loss: xr.DataArray
    mass: xr.DataArray
    control: xr.DataArray
    control_mass: xr.DataArray
    compared: xr.DataArray
    compared_mass: xr.DataArray

    @classmethod
    def of(cls, kept: xr.Dataset, over: Over, prefix: str = "") -> Cuts:
        """Means over the targets and draws of each unit."""
        divergence, loss, mass = (kept[f"{prefix}{name}"] for name in ("divergence", "loss", "mass"))
        control, control_mass = (
            kept[f"{prefix}control_{name}"].astype(np.float64).mean("sample")
            for name in ("divergence", "mass")
        )
        beside = control.notnull()
        compared = divergence.isel(fate=0, drop=True).where(beside)
        each = (divergence, loss, mass, control, control_mass, compared, mass.where(beside))
        return cls(over, prefix, *(over.units(one) for one in each))

    def called(self, values: xr.DataArray, name: str, long_name: str, units: str = "1") -> xr.DataArray:
        """The same, named as the result has it."""
        return named(values, f"{self.prefix}{name}", long_name, units)

    @property
    def map(self) -> tuple[str, str]:
        """Dimensions over which the strongest cut is picked."""
        return f"{self.prefix}edges", "layer"

    @property
    def relative(self) -> xr.DataArray:
        """(D − C) / (D + C), from −1 to 1: divergences of one cell differ by orders of magnitude between texts.

        0 where neither moves anything; NaN where there is no control.
        """
        both = self.compared + self.control
        return cell_by_cell(divide, self.compared - self.control, both).where(both != 0, 0.0)


def maps(cuts: Cuts, lost: str) -> xr.Dataset:
    """Cost of each cut, of random cuts, and the attention that was cut, with p over the whole map.

    Args:
        cuts: of passages or prompts.
        lost: whose log-probability is lost.
    """
    over = cuts.over
    costs = over.mean(
        cuts.called(cuts.divergence, "effect", "divergence that cutting brings about", "nat"), draws=True
    )
    loss = cuts.called(cuts.loss, "lost", f"log-probability of the {lost} that is lost", "nat")
    tested = over.paired(loss, together=cuts.map, p=f"{loss.name}_p")
    tested[f"{loss.name}_p"].attrs["long_name"] = "p of the lost log-probability, adjusted for the whole map"
    return xr.merge(
        [
            costs,
            tested,
            *_random_keys(cuts),
            *_attention_cut(cuts),
            _per_attention(cuts),
            _agreement(cuts, tested[f"{loss.name}_p"]),
        ]
    )


def _random_keys(cuts: Cuts) -> list[xr.Dataset]:
    over, name = cuts.over, f"{cuts.prefix}relative_excess"
    control = cuts.called(cuts.control, "control_effect", "divergence with random keys cut", "nat")
    excess = cuts.called(
        cuts.compared - cuts.control, "excess", "divergence beyond that of random keys cut", "nat"
    )
    said = "divergence less that of random keys, over the sum of both"
    tested = over.paired(named(_with_nothing(cuts.relative, over.unit), name, said), p=f"{name}_p")
    tested[f"{name}_p"].attrs["long_name"] = "p of the relative excess, adjusted for the whole map"
    relative = over.mean(named(cuts.relative, name, said), together=cuts.map)
    return [over.mean(control), over.mean(excess), relative, tested[[f"{name}_p", f"{name}_least_p"]]]


def _with_nothing(excess: xr.DataArray, unit: str) -> xr.DataArray:
    """Units without a control count as no excess, where at least half of the units have one.

    No sign makes 0 larger, so the test stays valid; it finds less.
    """
    known = excess.notnull()
    return excess.where(known | (known.mean(unit) < 0.5), 0.0)


def _attention_cut(cuts: Cuts) -> list[xr.Dataset]:
    kinds = (
        ("removed", cuts.mass, "attention that was cut, mean over heads"),
        (
            "compared_removed",
            cuts.compared_mass,
            "attention that was cut where there are random keys to compare with, mean over heads",
        ),
        ("control_removed", cuts.control_mass, "attention that was cut at random, mean over heads"),
    )
    return [cuts.over.mean(cuts.called(mass, name, said)) for name, mass, said in kinds]


def _per_attention(cuts: Cuts) -> xr.Dataset:
    """The effect for each unit of attention, where enough was cut to divide by."""
    known = cuts.divergence.notnull()
    mass = cuts.mass.broadcast_like(cuts.divergence).transpose(*cuts.divergence.dims)
    enough = known & (mass.fillna(0).mean(cuts.over.unit) >= _LEAST_MASS)
    effect = cuts.called(
        cuts.divergence.where(enough, 0),
        "effect_per_mass",
        "divergence over the attention that was cut",
        "nat",
    )
    return cuts.over.ratio(effect, mass.where(enough, 0))


def _agreement(cuts: Cuts, p: xr.DataArray) -> xr.Dataset:
    """Does an effect depend on where removed attention goes: smallest over largest, and how many are significant."""
    mean, loss = (values.mean(cuts.over.unit) for values in (cuts.divergence, cuts.loss))
    known = mean.notnull()
    several = known.sum("fate") > 1
    share = cell_by_cell(divide, mean.min("fate").where(several, 0), mean.max("fate").where(several, 0))
    sign = xr.apply_ufunc(np.sign, loss)
    alike = (p < ALPHA) & (sign == sign.isel(fate=0, drop=True))
    columns = (
        ("agreement", share, "smallest over largest divergence by where removed attention goes"),
        (
            "fates_told",
            alike.sum("fate"),
            "ways to place removed attention by which the loss is significant, with the sign of the first",
        ),
        ("fates_here", known.sum("fate"), "ways to place removed attention that are possible here"),
    )
    return xr.Dataset(
        {
            f"{cuts.prefix}{name}": quantity(values, map(str, values.dims), said)
            for name, values, said in columns
        }
    )
