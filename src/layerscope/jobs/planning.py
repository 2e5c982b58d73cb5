"""What will it cost? Run the first items for real, keep them, and scale by size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import xarray as xr

from layerscope.contract import OPERATIONS_A_SECOND, Stage, WorkItem
from layerscope.jobs.forecast import deciding, items_and_needs, next_to_measure, seconds_of_all
from layerscope.jobs.measuring import StageRun, combined, measure, threads
from layerscope.jobs.plan_ground import Ground, Known, Work, covered_by
from layerscope.jobs.plans import Plan, StagePlan
from layerscope.jobs.prepare import Job
from layerscope.jobs.progress import Silent
from layerscope.jobs.running import folder_of
from layerscope.models.memory import weight_bytes
from layerscope.results.store import RunFolder
from layerscope.runs import peak_bytes
from layerscope.runs.budget import bytes_per_token
from layerscope.runs.memory_limits import memory_limit

STAGE_SECONDS = 4.0
"""A stage that takes no longer is run whole; of another, items are measured for so long beside a large one."""

DECIDING_SECONDS = 20.0
"""The same of a stage that decides which items later ones have."""


def plan(job: Job, out: Path, *, load_seconds: float = 0.0) -> Plan:
    """Measure a small and a large item of every stage, and some more of one that decides what later ones have.

    A stage that takes no longer than some seconds is run whole; where it takes longer, those that need it are
    planned from the parts that exist, and what was run for them is not kept.
    """
    started = time.monotonic()
    folder = folder_of(job, out)
    stages: list[StagePlan] = []
    part_bytes = 0.0
    decide = deciding(job.experiment, job.inputs, job.settings)
    with (
        job.model.in_use(),
        folder.writing(),
        threads(folder.record.machine.threads),
        TemporaryDirectory() as elsewhere,
    ):
        ground = Ground(job.inputs, folder, RunFolder.create(Path(elsewhere), folder.record, {}))
        for stage in job.experiment.stages:
            work = _work(job, stage, ground)
            if not work.sizes:
                ground.add(stage.name, Known(xr.Dataset(), ground.inputs))
                continue
            measured = _measured(job, stage, work, ground, stage.name in decide)
            stages.append(_stage_plan(stage, work, ground, measured, so_far=stages))
            part_bytes += _mean_bytes(ground.folder, stage) * stages[-1].items
            if measured:
                ground.add(stage.name, _known(ground, stage, work))
                ground.read_ahead &= ground.known[stage.name].finished or not stage.reads_ahead
    return Plan(
        folder=folder.path,
        stages=tuple(stages),
        load_seconds=load_seconds,
        took=time.monotonic() - started,
        peak_bytes=(peak := peak_bytes(job.model.device)),
        process_bytes=max(peak, _of_largest_passes(job)),
        limit=memory_limit() if job.model.device.type == "cpu" else None,
        part_bytes=int(part_bytes),
        path=str(job.record.chunk_plan["path"]),
    )


def _of_largest_passes(job: Job) -> int:
    return weight_bytes(job.model.module) + job.inputs.tokens_per_pass * bytes_per_token(job.model)


def _work(job: Job, stage: Stage, ground: Ground) -> Work:
    """The items of a stage, as far as the stages before it tell."""
    try:
        items, needs = items_and_needs(stage, ground.inputs, job.settings, ground.earlier)
    except (LookupError, ValueError):
        if ground.whole:
            raise
        if stage.expected is not None and len(ground.known) < job.experiment.stages.index(stage):
            return Work([], list(stage.expected(job.inputs, job.settings)), False)
        # The few texts that were tried are not fit; whether others are, only the whole stages before can tell.
        _measure_all_before(job, stage, ground)
        items, needs = items_and_needs(stage, ground.inputs, job.settings, ground.earlier)
    unfinished = [ground.known[name] for name in needs if not ground.known[name].finished]
    if ground.whole:
        return Work(items, [item.size for item in items])
    # Those that it does not ask for keep no item back: so all, or all of the texts that the last one asked for covers.
    last = unfinished[-1] if unfinished else Known(xr.Dataset(), job.inputs)
    with suppress(LookupError, ValueError):
        every = [item.size for item in stage.items(last.inputs, job.settings, ground.earlier)]
        if every:
            return Work(items, every, not unfinished, last.share, last.counted)
    last = min(ground.known.values(), key=lambda known: known.share)
    return Work(items, [item.size for item in items], False, last.share, last.counted)


def _measure_all_before(job: Job, stage: Stage, ground: Ground) -> None:
    ground.begin_again(job.inputs)
    for before in job.experiment.stages[: job.experiment.stages.index(stage)]:
        items = list(before.items(job.inputs, job.settings, ground.earlier))
        _timed(job, ground, before, items)
        ground.add(before.name, Known(combined(ground.folder, before, items), job.inputs))


def _measured(job: Job, stage: Stage, work: Work, ground: Ground, decides: bool) -> dict[int, float]:
    """Seconds of some items of a stage, or of all if that is quick; none where parts of those before do not serve."""
    items, sizes = work.items, [item.size for item in work.items]
    times: dict[int, float] = {}
    if not ground.read_ahead:  # what is measured now would read it instead
        return times
    done = _done(ground, stage, items)
    if done:  # by a plan or run before this one; killed, it has not said how long they took
        size = sum(sizes[place] for place in done)
        spent = _spent(ground, stage) or size / OPERATIONS_A_SECOND
        times = {index: spent * sizes[index] / size for index in done}
    limit = DECIDING_SECONDS if decides else STAGE_SECONDS
    while (index := next_to_measure(sizes, times, limit)) is not None:
        try:
            times[index] = _timed(job, ground, stage, items, only=[index])
        except (LookupError, ValueError):
            if ground.whole:
                raise
            return {}  # a layer of many, say, where it wants all of them
        if len(times) > 1 and seconds_of_all(sizes, _pairs(sizes, times)) <= limit:
            _timed(job, ground, stage, items)
            break
    return times


def _stage_plan(
    stage: Stage, work: Work, ground: Ground, times: dict[int, float], *, so_far: Sequence[StagePlan]
) -> StagePlan:
    """Scale up what was measured of a stage; where nothing could be, its operations at the speed of those before."""
    operations = sum(work.sizes) / work.share
    if times:
        sizes = [item.size for item in work.items]
        seconds = seconds_of_all(work.sizes, _pairs(sizes, times)) / work.share
    else:
        size, went = sum(each.operations for each in so_far), sum(each.seconds for each in so_far)
        seconds = operations * went / size
    done, kept = _done(ground, stage, work.items), ground.whole
    return StagePlan(
        stage=stage.name,
        items=round(len(work.sizes) / work.counted),
        measured=len(done) if kept else 0,
        seconds=_spent(ground, stage) if kept and len(done) == len(work.items) else seconds,
        spent=_spent(ground, stage) if kept else 0.0,
        exact=work.known and bool(times),
        operations=operations,
    )


def _pairs(sizes: Sequence[float], times: dict[int, float]) -> list[tuple[float, float]]:
    return [(sizes[index], seconds) for index, seconds in times.items()]


def _known(ground: Ground, stage: Stage, work: Work) -> Known:
    """What later stages can rest on."""
    done = _done(ground, stage, work.items)
    result = combined(ground.folder, stage, work.items, only=done)
    if len(done) == len(work.items) and ground.whole:
        return Known(result, ground.inputs)
    covered = covered_by(ground.inputs, result)
    if covered == ground.inputs:  # a sum does not tell whose
        return Known(result, covered, False, work.share, work.counted)
    share = sum(work.items[index].size for index in done) / sum(work.sizes)
    return Known(result, covered, False, work.share * share, work.counted * len(done) / len(work.sizes))


def _done(ground: Ground, stage: Stage, items: Sequence[WorkItem]) -> list[int]:
    return sorted(index for index in ground.folder.done(stage.name) if index < len(items))


def _spent(ground: Ground, stage: Stage) -> float:
    went = ground.folder.record.stages.get(stage.name)
    return went.seconds if went else 0.0


def _timed(
    job: Job, ground: Ground, stage: Stage, items: Sequence[WorkItem], only: Sequence[int] | None = None
) -> float:
    started = time.monotonic()
    folder = ground.folder
    measure(StageRun(job, folder, folder.record, stage, items, ground.earlier, only), Silent())
    return time.monotonic() - started


def _mean_bytes(folder: RunFolder, stage: Stage) -> float:
    sizes = [folder.part_path(stage.name, index).stat().st_size for index in folder.done(stage.name)]
    return sum(sizes) / len(sizes) if sizes else 0.0
