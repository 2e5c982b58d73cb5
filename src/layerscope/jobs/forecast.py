"""Seconds of many items from a few that were measured, and which few those should be."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import xarray as xr

from layerscope.contract import Earlier, Experiment, ExperimentSettings, Inputs, Stage, WorkItem

_ALIKE = 0.8
"""Items are of one size where the smaller comes to so much of the larger."""

_WARM_SECONDS = 30.0
"""What a first call costs beyond later ones does not show in an item that takes longer."""

_LARGE_SECONDS = 10.0
"""The large item is one that is expected to take no longer."""

_UNEVEN = 6
"""Items of unlike sizes differ in what they cost for their size too: so many are measured, or two large ones' time."""


class Noted(Mapping[str, xr.Dataset]):
    """Results of earlier stages, with a note of which were asked for."""

    def __init__(self, earlier: Earlier) -> None:
        self._earlier = earlier
        self.asked: list[str] = []

    def __getitem__(self, name: str) -> xr.Dataset:
        self.asked.append(name)
        return self._earlier[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._earlier)

    def __len__(self) -> int:
        return len(self._earlier)


def deciding(experiment: Experiment, inputs: Inputs, settings: ExperimentSettings) -> set[str]:
    """Stages whose results decide which items a later one has, found by asking for these before there are any."""
    found: set[str] = set()
    for stage in experiment.stages:
        noted = Noted({})
        try:
            list(stage.items(inputs, settings, noted))
        except (LookupError, ValueError):  # it went no further without the result, or refused the texts
            found |= set(noted.asked)
    return found


def items_and_needs(
    stage: Stage, inputs: Inputs, settings: ExperimentSettings, earlier: Earlier
) -> tuple[list[WorkItem], list[str]]:
    """The items of a stage, and the earlier stages whose results decide them: those that it stops for the lack of."""
    given: dict[str, xr.Dataset] = {}
    while True:
        noted = Noted(given)
        try:
            return list(stage.items(inputs, settings, noted)), list(given)
        except KeyError:
            lacking = [name for name in noted.asked if name in earlier and name not in given]
            if not lacking:
                raise
            given |= {name: earlier[name] for name in lacking}


def next_to_measure(sizes: Sequence[float], measured: Mapping[int, float], seconds: float) -> int | None:
    """Which item to measure next: a small one, a large one, then others until so many seconds went by; None: enough.

    Args:
        sizes: of all items.
        measured: seconds by item, in the order in which they were measured.
        seconds: how long to go on once a small and a large one were measured.
    """
    left = [
        place for place in sorted(range(len(sizes)), key=lambda place: sizes[place]) if place not in measured
    ]
    if not left:
        return None
    if not _warm(measured):
        return left[0]
    small, largest = min(measured, key=lambda place: sizes[place]), max(sizes[place] for place in measured)
    most = sizes[small] / max(measured[small], 1e-9) * _LARGE_SECONDS
    large = [place for place in left if sizes[place] <= most and largest < _ALIKE * sizes[place]]
    if large and largest < _ALIKE * most:
        return large[-1]
    spent = sum(measured.values())
    uneven = sizes[small] < _ALIKE * max(sizes) and len(measured) < _UNEVEN
    if spent < seconds or (uneven and spent < 2 * _LARGE_SECONDS):
        others = (place for place in _all_over(len(sizes)) if place not in measured and sizes[place] <= most)
        return next(others, None)
    return None


def _all_over(count: int) -> Iterator[int]:
    """Every place below a count once, each beginning as evenly spread as it can be (van der Corput's order).

    What an earlier stage leaves out may go with size, so a sample by size would mislead.
    """
    bits = max(1, (count - 1).bit_length())
    turned = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(2**bits))
    return (place for place in turned if place < count)


def _warm(measured: Mapping[int, float]) -> list[int]:
    """Items that did not pay for the first call of a process, or took so long that it does not show."""
    first = next(iter(measured), None)
    return [place for place, took in measured.items() if place != first or took >= _WARM_SECONDS]


def seconds_of_all(sizes: Collection[float], measured: Sequence[tuple[float, float]]) -> float:
    """Seconds of items of these sizes: a fixed time for each, and a time that goes with size.

    Args:
        sizes: of all items.
        measured: sizes and seconds of some of them, in the order in which they were measured.
    """
    warm = _warm(dict(enumerate(seconds for _, seconds in measured))) or range(len(measured))
    known, seconds = np.array([measured[place] for place in warm]).T
    if known.min() < _ALIKE * known.max():
        slope, fixed = np.polyfit(known, seconds, 1)
        if slope <= 0:
            return float(seconds.mean() * len(sizes))
        if fixed >= 0:
            return float(slope * sum(sizes) + fixed * len(sizes))
    return float(seconds.sum() / known.sum() * sum(sizes))


def expected_sizes(
    experiment: Experiment, inputs: Inputs, settings: ExperimentSettings
) -> dict[str, list[float] | None]:
    """Sizes of the items of every stage before anything is measured, by its name; None where nothing tells them."""
    return {stage.name: _expected(stage, inputs, settings) for stage in experiment.stages}


def _expected(stage: Stage, inputs: Inputs, settings: ExperimentSettings) -> list[float] | None:
    try:
        if stage.expected is not None:
            return list(stage.expected(inputs, settings))
        return [item.size for item in stage.items(inputs, settings, {})]
    except (LookupError, ValueError):  # it rests on results that are not there, or refuses the texts
        return None
