"""What will it cost? Run the first items for real, keep them, and scale by size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Inputs, Stage, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.jobs.measuring import StageRun, combined, measure, threads
from layerscope.jobs.prepare import Job
from layerscope.jobs.progress import Silent
from layerscope.jobs.running import folder_of
from layerscope.results.escaping import stored
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
        measured: how many are run and kept, for this plan or before.
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

    def seconds_with(self, workers: int) -> float:
        """The same with so many worker processes, on a core each, which share the items of a stage."""
        if not workers:
            return self.seconds_left
        return sum(
            max(0.0, stage.seconds - stage.spent) / max(1, min(workers, stage.items)) for stage in self.stages
        )


@dataclass
class _Ground:
    """What the plan of a stage rests on: the stages before it.

    Attributes:
        earlier: their results, as far as they were measured.
        inputs: the texts that those results are about; all of them unless a stage was left unfinished.
        share: how much of the whole run's work the texts are.
        folder: where parts go: the run's own folder while every stage before was finished; then another
            one, for a part that rests on an unfinished stage is not the run's.
    """

    earlier: dict[str, xr.Dataset]
    inputs: Inputs
    share: float
    folder: RunFolder


def plan(job: Job, out: Path, *, load_seconds: float = 0.0) -> Plan:
    """Measure the first items of every stage and scale them up.

    A stage that takes no longer than some seconds is run whole, since later stages need it; where it
    takes longer, the later ones are planned from those of its parts that exist: their number of items is
    an estimate, and what was run for it is not kept.
    """
    folder = folder_of(job, out)
    stages: list[StagePlan] = []
    part_bytes = 0.0
    with (
        job.model.in_use(),
        folder.writing(),
        threads(folder.record.machine.threads),
        TemporaryDirectory() as elsewhere,
    ):
        scratch = RunFolder.create(Path(elsewhere), folder.record, {})
        ground = _Ground({}, job.inputs, 1.0, folder)
        for stage in job.experiment.stages:
            items = _items(job, folder, stage, ground)
            if not items:
                ground.earlier[stage.name] = xr.Dataset()
                continue
            stages.append(_planned(job, folder, stage, items, ground))
            part_bytes += _mean_bytes(ground.folder, stage) * stages[-1].items
            ground = _after(job, stage, items, ground, scratch)
    return Plan(
        folder=folder.path,
        stages=tuple(stages),
        load_seconds=load_seconds,
        peak_bytes=peak_bytes(job.model.device),
        part_bytes=int(part_bytes),
        path=str(job.record.chunk_plan["path"]),
    )


def _items(job: Job, folder: RunFolder, stage: Stage, ground: _Ground) -> list[WorkItem]:
    try:
        return list(stage.items(ground.inputs, job.settings, ground.earlier))
    except LayerscopeError:
        if ground.folder is folder:
            raise
    # The few texts that were tried are not fit; whether others are, only the whole stages before can tell.
    ground.folder, ground.share, ground.inputs = folder, 1.0, job.inputs
    ground.earlier = {}
    for before in job.experiment.stages[: job.experiment.stages.index(stage)]:
        items = list(before.items(job.inputs, job.settings, ground.earlier))
        measure(StageRun(job, folder, folder.record, before, items, ground.earlier), Silent())
        ground.earlier[before.name] = combined(folder, before, items)
    return list(stage.items(ground.inputs, job.settings, ground.earlier))


def _share_of_all(job: Job, stage: Stage, items: Sequence[WorkItem], ground: _Ground) -> float:
    """How much of the whole run's work in a stage these items are.

    Where the stage can cut items of texts that no earlier stage has seen, it waits for none of them, and all of its
    items are known: some stages take a few texts, however many there are. Else it is taken to grow with the texts.
    """
    if ground.share == 1.0:
        return 1.0
    try:
        waits = not list(stage.items(_others(job.inputs, ground.inputs), job.settings, ground.earlier))
        every = [] if waits else list(stage.items(job.inputs, job.settings, ground.earlier))
    except (ValueError, LookupError):
        return ground.share
    return sum(item.size for item in items) / sum(item.size for item in every) if every else ground.share


def _others(inputs: Inputs, covered: Inputs) -> Inputs:
    """The texts that are not among the covered ones."""
    kinds = ("prompts", "passages", "treebank")
    seen = {id(text) for kind in kinds for text in getattr(covered, kind)}
    return inputs.model_copy(
        update={kind: tuple(text for text in getattr(inputs, kind) if id(text) not in seen) for kind in kinds}
    )


def _planned(
    job: Job, folder: RunFolder, stage: Stage, items: Sequence[WorkItem], ground: _Ground
) -> StagePlan:
    """Measure some items of a stage, or all if that is quick, and scale up."""
    kept, share = ground.folder is folder, _share_of_all(job, stage, items, ground)
    done_before = ground.folder.done(stage.name)
    times: list[tuple[float, float]] = []
    for index in _spread(items):
        if _enough(times):
            break
        if index not in done_before:
            times.append((items[index].size, _timed(job, ground, stage, items, only=[index])))
    seconds = _whole(times, items, spent=_spent(ground, stage))
    if kept and seconds <= _WHOLE_STAGE_SECONDS:
        _timed(job, ground, stage, items)
    done = _done(ground, stage, items)
    if kept and len(done) == len(items):
        seconds = _spent(ground, stage)
    return StagePlan(
        stage=stage.name,
        items=round(len(items) / share),
        measured=len(done) if kept else 0,
        seconds=seconds / share,
        spent=_spent(ground, stage) if kept else 0.0,
        exact=kept,
    )


def _after(job: Job, stage: Stage, items: Sequence[WorkItem], ground: _Ground, scratch: RunFolder) -> _Ground:
    """What the next stage's plan rests on."""
    done = _done(ground, stage, items)
    result = combined(ground.folder, stage, items, only=done)
    if len(done) == len(items):
        return replace(ground, earlier={**ground.earlier, stage.name: result})
    inputs = _covered(ground.inputs, result)
    share = _n_texts(inputs) / n if (n := _n_texts(job.inputs)) else 1.0
    return _Ground({**ground.earlier, stage.name: result}, inputs, share, scratch)


def _covered(inputs: Inputs, result: xr.Dataset) -> Inputs:
    """The texts that an unfinished stage has something to say about; all where it does not tell whose."""
    update: dict[str, tuple[Any, ...]] = {}
    for name in ("prompt", "token_prompt"):
        if name in result.coords:
            there = set(result[name].values.tolist())
            update["prompts"] = tuple(prompt for prompt in inputs.prompts if stored(prompt.name) in there)
    for name in ("passage", "token_passage"):
        if name in result.coords:
            there = set(result[name].values.tolist())
            update["passages"] = tuple(text for text in inputs.passages if stored(text.name) in there)
    for name in ("sentence", "token_sentence", "word_sentence"):
        if name in result.coords:
            there = set(result[name].values.tolist())
            update["treebank"] = tuple(text for text in inputs.treebank if stored(text.name) in there)
    return inputs.model_copy(update=update)


def _n_texts(inputs: Inputs) -> int:
    # Words stand in no part of a result that could tell which were measured: they are always all there.
    return len(inputs.prompts) + len(inputs.passages) + len(inputs.treebank)


def _done(ground: _Ground, stage: Stage, items: Sequence[WorkItem]) -> list[int]:
    return sorted(index for index in ground.folder.done(stage.name) if index < len(items))


def _spent(ground: _Ground, stage: Stage) -> float:
    went = ground.folder.record.stages.get(stage.name)
    return went.seconds if went else 0.0


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
    job: Job, ground: _Ground, stage: Stage, items: Sequence[WorkItem], only: Sequence[int] | None = None
) -> float:
    started = time.monotonic()
    folder = ground.folder
    measure(StageRun(job, folder, folder.record, stage, items, ground.earlier, only), Silent())
    return time.monotonic() - started


def _whole(times: Sequence[tuple[float, float]], items: Sequence[WorkItem], spent: float) -> float:
    """Seconds for all items: a fixed cost per item and a cost per size, both from the measured ones.

    The very first item pays for warming up, so it only counts where there is nothing else.
    """
    if not times:
        return spent
    warm = times[1:] if len(times) > max(1, _FEWEST_ITEMS) else times
    sizes, seconds = np.array(warm).T
    total = sum(item.size for item in items)
    if len(warm) >= _FEWEST_ITEMS and np.ptp(sizes) > 0.2 * sizes.mean():
        slope, fixed = np.polyfit(sizes, seconds, 1)
        if slope > 0 and fixed >= 0:
            return float(slope * total + fixed * len(items))
    return float(seconds.sum() / sizes.sum() * total)


def _mean_bytes(folder: RunFolder, stage: Stage) -> float:
    sizes = [folder.part_path(stage.name, index).stat().st_size for index in folder.done(stage.name)]
    return sum(sizes) / len(sizes) if sizes else 0.0
