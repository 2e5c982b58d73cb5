"""What will it cost? Run the first items for real, keep them, and scale by size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from layerscope.experiments._contract import Stage, WorkItem
from layerscope.jobs.measuring import combined, measure
from layerscope.jobs.prepare import Job
from layerscope.jobs.progress import Silent
from layerscope.jobs.running import folder_of
from layerscope.results.store import RunFolder
from layerscope.runs import peak_bytes

_ENOUGH_SECONDS = 6.0
_FEWEST_ITEMS = 3
_WHOLE_STAGE_SECONDS = 10.0


@dataclass(frozen=True)
class StagePlan:
    """The expected cost of one stage.

    Attributes:
        stage: its name.
        items: how many work items it has; an estimate where an earlier stage decides and was not finished.
        measured: how many were run for this plan, and are kept.
        seconds: expected measuring time of the whole stage.
        spent: seconds that are already spent on it, here or before.
        exact: whether the number of items is known.
    """

    stage: str
    items: int
    measured: int
    seconds: float
    spent: float
    exact: bool


@dataclass(frozen=True)
class Plan:
    """What a run will cost, and where the parts that the plan ran are kept."""

    folder: Path
    stages: tuple[StagePlan, ...]
    load_seconds: float
    peak_bytes: int
    part_bytes: int
    path: str

    @property
    def seconds(self) -> float:
        """Expected measuring time of the whole run, from nothing."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def seconds_left(self) -> float:
        """Expected time until the run is complete."""
        return max(0.0, self.seconds - sum(stage.spent for stage in self.stages))


def plan(job: Job, out: Path, *, load_seconds: float = 0.0) -> Plan:
    """Measure the first items of every stage and scale them up.

    A stage that takes no longer than some seconds is run whole, since later stages need it; where it
    takes longer, the later ones are planned from those of its parts that exist, and their number of
    items is an estimate.
    """
    folder = folder_of(job, out)
    stages: list[StagePlan] = []
    earlier: dict[str, xr.Dataset] = {}
    share = 1.0
    with folder.writing():
        for stage in job.experiment.stages:
            planned, earlier[stage.name], share = _planned(job, folder, stage, earlier, share)
            stages.append(planned)
    return Plan(
        folder=folder.path,
        stages=tuple(stages),
        load_seconds=load_seconds,
        peak_bytes=peak_bytes(job.model.device),
        part_bytes=_expected_bytes(folder, stages),
        path=str(job.record.chunk_plan["path"]),
    )


def _planned(
    job: Job, folder: RunFolder, stage: Stage, earlier: dict[str, xr.Dataset], share: float
) -> tuple[StagePlan, xr.Dataset, float]:
    """One stage: its plan, its result so far, and the share of its items that this rests on."""
    items = list(stage.items(job.inputs, job.settings, earlier))
    record = folder.record
    done_before = folder.done(stage.name)
    order = _spread(items)
    times: list[tuple[float, float]] = []
    for index in order:
        if _enough(times):
            break
        if index not in done_before:
            times.append((items[index].size, _timed(job, folder, stage, items, earlier, index)))
    seconds = _whole(
        times, items, spent=record.stages[stage.name].seconds if stage.name in record.stages else 0.0
    )
    if seconds <= _WHOLE_STAGE_SECONDS and share == 1.0:
        measure(job, folder, folder.record, stage, items, earlier, Silent())
    done = sorted(index for index in folder.done(stage.name) if index < len(items))
    planned = StagePlan(
        stage=stage.name,
        items=round(len(items) / share),
        measured=len(done),
        seconds=seconds / share,
        spent=folder.record.stages[stage.name].seconds,
        exact=share == 1.0,
    )
    return planned, combined(folder, stage, items, only=done), share * len(done) / max(1, len(items))


def _spread(items: Sequence[WorkItem]) -> list[int]:
    """The first item, then items of all sizes: the largest shows the memory, the spread the slope."""
    if not items:
        return []
    by_size = sorted(range(len(items)), key=lambda index: items[index].size)
    picks = [by_size[round(share * (len(items) - 1))] for share in np.linspace(0, 1, 9)]
    return list(dict.fromkeys([0, by_size[-1], *picks, *range(len(items))]))


def _enough(times: Sequence[tuple[float, float]]) -> bool:
    return len(times) > _FEWEST_ITEMS and sum(seconds for _, seconds in times) >= _ENOUGH_SECONDS


def _timed(
    job: Job,
    folder: RunFolder,
    stage: Stage,
    items: Sequence[WorkItem],
    earlier: dict[str, xr.Dataset],
    index: int,
) -> float:
    started = time.monotonic()
    measure(job, folder, folder.record, stage, items, earlier, Silent(), only=[index])
    return time.monotonic() - started


def _whole(times: Sequence[tuple[float, float]], items: Sequence[WorkItem], spent: float) -> float:
    """Seconds for all items: a fixed cost per item and a cost per size, both from the measured ones.

    The very first item pays for warming up, so it only counts where there is nothing else.
    """
    if not times:
        return spent
    warm = times[1:] if len(times) > _FEWEST_ITEMS else times
    sizes, seconds = np.array(warm).T
    total = sum(item.size for item in items)
    if len(warm) >= _FEWEST_ITEMS and np.ptp(sizes) > 0.2 * sizes.mean():
        slope, fixed = np.polyfit(sizes, seconds, 1)
        if slope > 0 and fixed >= 0:
            return float(slope * total + fixed * len(items))
    return float(seconds.sum() / sizes.sum() * total)


def _expected_bytes(folder: RunFolder, stages: Sequence[StagePlan]) -> int:
    total = 0.0
    for stage in stages:
        parts = [path.stat().st_size for path in (folder.path / "parts" / stage.stage).glob("[0-9]*.npz")]
        if parts:
            total += sum(parts) / len(parts) * stage.items
    return int(total)
