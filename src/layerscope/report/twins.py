"""What a report knows of a run's untrained twins, and how it shows them beside the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Experiment
from layerscope.evidence.twins import beside_twins
from layerscope.evidence.wording import ends, measured, range_of_twins
from layerscope.maths.prediction import FEWEST
from layerscope.plots.strip import StripRow, layers_at_a_glance
from layerscope.report.figures import PageFigure, page_figure
from layerscope.results.store import RunFolder
from layerscope.results.twins import twin_runs_of, twins_of

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
class TwinsOfClaim:
    """One row: what the model claims, and the same number of its twins.

    Attributes:
        claim: the model's.
        mean: of the twins, with its unit.
        between: their smallest and largest.
        predicted: where one more would lie; empty with too few.
    """

    claim: Claim
    mean: str
    between: str
    predicted: str


@dataclass(frozen=True)
class Beside:
    """What stands beside a model's findings.

    Attributes:
        twins: who they are.
        rows: claims whose number twins have, too.
        figure: the model's curve over depth with its twins', where both have one.
    """

    twins: Twins
    rows: tuple[TwinsOfClaim, ...] = field(default=())
    figure: PageFigure | None = None


def twins_beside(
    run: RunFolder, among: Sequence[RunFolder], experiment: Experiment, tried: Tried
) -> Twins | None:
    """The twins of a run, read from their results; None where there are none, in whatever state."""
    results = twins_of(run, among)
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


def shown_beside(anchor: str, row: StripRow | None, claims: Sequence[Claim], twins: Twins) -> Beside:
    """The figure and the table of one section.

    Args:
        anchor: of the section.
        row: its panel, twins in it; None where it has none.
        claims: the model's, as its twins left them.
        twins: the twins.
    """
    figure = None
    if row is not None and row.twins:
        own = "The trained model, with bands" + (
            " and, dashed, the experiment's own null." if "null" in row.values else "."
        )
        caption = f"{own} {dotted(len(row.twins))}"
        drawn = layers_at_a_glance([row], caption=caption, panel=260)
        figure = page_figure(f"{anchor}-twin", "Beside untrained twins", drawn)
    rows = tuple(_row(claim) for claim in claims if claim.twins)
    return Beside(twins, rows, figure)


def dotted(count: int) -> str:
    """What dotted lines are."""
    return f"Dotted: {count} untrained twins." if count > 1 else "Dotted: the untrained twin."


def _row(claim: Claim) -> TwinsOfClaim:
    least, most = min(claim.twins), max(claim.twins)
    low, high = claim.twins_range
    mean = measured(float(np.mean(claim.twins)), claim.unit, least, most)
    predicted = "" if math.isnan(low) else range_of_twins(claim.unit, low, high)
    return TwinsOfClaim(claim, mean, ends(claim.unit, least, most) if len(claim.twins) > 1 else "", predicted)
