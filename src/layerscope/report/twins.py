"""What a report knows of a run's untrained twins, and how it shows them beside the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Experiment
from layerscope.evidence.twins import beside_twins
from layerscope.evidence.wording import ends, measured, range_of_twins
from layerscope.maths.prediction import FEWEST
from layerscope.plots import more
from layerscope.plots.strip import StripRow, layers_at_a_glance
from layerscope.report.figures import PageFigure, page_figure
from layerscope.results.store import RunFolder
from layerscope.results.twins import twin_runs_of

Tried = Callable[[str, Callable[[], Any], Any], Any]
"""Calls what may fail on one result: what fails is said on the page."""


@dataclass(frozen=True)
class Twins:
    """The untrained twins of a run.

    Attributes:
        seeds: of those with a result.
        claims: what each claims.
        curves: what each has over depth, the measure that speaks for the experiment.
        ship: whether they come with Layerscope, and were not run here.
        problems: why others have no result.
    """

    seeds: tuple[int, ...] = ()
    claims: tuple[list[Claim], ...] = ()
    curves: tuple[xr.Dataset, ...] = ()
    ship: bool = False
    problems: tuple[str, ...] = ()

    def beside(self, claims: Sequence[Claim]) -> list[Claim]:
        """A model's claims, judged beside these twins'."""
        return beside_twins(claims, self.claims)

    @property
    def said(self) -> str:
        """How many they are, and what they can decide."""
        count = len(self.seeds)
        whose = " (their quantities come with Layerscope)" if self.ship else ""
        if count >= FEWEST:
            return (
                f"{count} untrained twins{whose}. A finding that untrained models show too counts as significant only "
                "outside the 95% prediction interval for one more twin."
            )
        few = f"{count} untrained twin{'s' * (count > 1)}{whose}"
        return f"{few}. Fewer than {FEWEST} are shown and decide nothing."


@dataclass(frozen=True)
class TwinNumbers:
    """The number of a claim in untrained twins.

    Attributes:
        mean: of the twins, with its unit.
        between: their smallest and largest.
        predicted: where one more would lie; empty with too few.
    """

    mean: str
    between: str
    predicted: str


def twins_beside(
    run: RunFolder,
    among: Sequence[RunFolder],
    results: Mapping[int, xr.Dataset],
    experiment: Experiment,
    tried: Tried,
) -> Twins | None:
    """The twins of a run, from their results; None where there are none, in whatever state."""
    runs = twin_runs_of(run, among)
    records = {seed: twin.record for seed, twin in runs.items() if seed not in results}
    problems = tuple(f"untrained twin {seed}: {one.refused}" for seed, one in records.items() if one.refused)
    if not results and not problems:
        return None
    return Twins(
        seeds=tuple(results),
        claims=tuple(_of_each(results, "claims", experiment.claims, tried, [])),
        curves=tuple(_curves(results, experiment, tried)),
        ship=bool(results) and not runs.keys() & results.keys(),
        problems=problems,
    )


def _of_each(
    results: Mapping[int, xr.Dataset], what: str, call: Callable[[xr.Dataset], Any], tried: Tried, none: Any
) -> Iterator[Any]:
    for seed, result in results.items():
        yield tried(f"{what} of untrained twin {seed}", partial(call, result), none)


def _curves(results: Mapping[int, xr.Dataset], experiment: Experiment, tried: Tried) -> Iterator[xr.Dataset]:
    for measures in _of_each(results, "over_depth", experiment.over_depth, tried, {}):
        first = next(iter(measures.values()), None)
        # A twin that gets no prompt right has nothing to average.
        if first is not None and "value" in first and np.isfinite(first["value"].values).any():
            yield first


def figure_beside(anchor: str, row: StripRow | None) -> PageFigure | None:
    """A model's curve over depth with its twins', dotted; None where either has none.

    Args:
        anchor: of the section.
        row: its panel, twins in it.
    """
    if row is None or not row.twins:
        return None
    own = "The trained model, with bands" + (
        " and, dashed, the experiment's own null." if "null" in row.values else "."
    )
    many = len(row.twins)
    dotted = f"Dotted: {many} untrained twins." if many > 1 else "Dotted: the untrained twin."
    drawn = layers_at_a_glance([row], caption=f"{own} {dotted}", panel=260)
    return page_figure(f"{anchor}-twin", "Beside untrained twins", more({"": drawn})[""])


def numbers_of_twins(claim: Claim) -> TwinNumbers | None:
    """What untrained twins have where a model has a claim's value; None where they have nothing."""
    if not claim.twins:
        return None
    least, most = min(claim.twins), max(claim.twins)
    low, high = claim.twins_range
    mean = measured(float(np.mean(claim.twins)), claim.unit, least, most)
    predicted = "" if math.isnan(low) else range_of_twins(claim.unit, low, high)
    return TwinNumbers(mean, ends(claim.unit, least, most) if len(claim.twins) > 1 else "", predicted)
