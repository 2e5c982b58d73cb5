"""Carry a job out: stages, items, parts, conclusion. Resuming is doing the same again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import reduce

import torch
import xarray as xr

from layerscope.contract import Stage, WorkItem
from layerscope.engines.local import LocalEngine
from layerscope.errors import LayerscopeError
from layerscope.jobs.prepare import Job, this_machine
from layerscope.jobs.progress import Progress
from layerscope.results.combine import concatenate
from layerscope.results.record import RunRecord, StageRecord, digest, now
from layerscope.results.store import RunStore
from layerscope.runs import peak_bytes


def carry_out(job: Job, folder: RunStore, progress: Progress) -> None:
    """Measure what is not yet measured, conclude, and save.

    Every part is saved as soon as it is there, and results are always put together from the saved
    parts, so an interrupted run and an uninterrupted one give the same bytes.
    """
    with job.model.in_use(), folder.writing(), threads(folder.record.machine.threads):
        record = _begun(job, folder)
        with _refusal_recorded(folder, record):
            result = signed(_concluded(job, folder, record, progress), record)
        record.result = folder.save_result(result)
        record.state, record.finished = "complete", now()
        folder.save_record(record)


def _concluded(job: Job, folder: RunStore, record: RunRecord, progress: Progress) -> xr.Dataset:
    earlier: dict[str, xr.Dataset] = {}
    for stage in job.experiment.stages:
        items = list(stage.items(job.inputs, job.settings, earlier))
        if items:  # what was not asked for has none
            measure(job, folder, record, stage, items, earlier, progress)
        earlier[stage.name] = combined(folder, stage, items)
    return job.experiment.conclude(earlier, job.settings)


@contextmanager
def _refusal_recorded(folder: RunStore, record: RunRecord) -> Iterator[None]:
    """A run that is refused says so, and why; what it measured until then is kept."""
    try:
        yield
    except LayerscopeError as error:
        record.state, record.refused = "refused", str(error)
        with suppress(LayerscopeError):  # the disk may be what refused it
            folder.save_record(record)
        raise


def _begun(job: Job, folder: RunStore) -> RunRecord:
    record = folder.record
    here = this_machine(job.model.device, job.experiment)
    differences = differing(record.machine.model_dump(), here.model_dump())
    if record.stages and differences:
        record.notes.append(f"resumed {now()} with other {', '.join(differences)}")
    record.state, record.result, record.refused = "running", None, ""
    folder.save_record(record)
    return record


@contextmanager
def threads(number: int) -> Iterator[None]:
    """This many threads for torch, and as many as before afterwards: their number decides last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def differing(before: dict[str, object], after: dict[str, object], above: str = "") -> list[str]:
    """What differs between two records, each as "name: before -> after"."""
    found = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differing(old, new, f"{above}{name} ")
        elif old != new:
            found.append(f"{above}{name}: {_short(old)} -> {_short(new)}")
    return found


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def measure(
    job: Job,
    folder: RunStore,
    record: RunRecord,
    stage: Stage,
    items: Sequence[WorkItem],
    earlier: dict[str, xr.Dataset],
    progress: Progress,
    *,
    only: Sequence[int] | None = None,
) -> None:
    """Measure the items of a stage that have no part yet, saving each part and the record.

    Args:
        job: what to measure.
        folder: where parts go.
        record: brought up to date and saved, also when the work is interrupted.
        stage: the stage.
        items: all of its items.
        earlier: results of the stages before.
        progress: told about every item.
        only: indices to measure, where not all are wanted (a plan).
    """
    done = folder.done(stage.name)
    wanted = range(len(items)) if only is None else only
    pending = [(index, items[index]) for index in wanted if index not in done]
    kept = [items[index] for index in wanted if index in done]
    went = record.stages.get(stage.name, StageRecord(items=0, size=0.0))
    went = went.model_copy(update={"items": len(items), "size": sum(item.size for item in items)})
    progress.begin(
        f"{job.experiment.name} · {stage.name}",
        items=len(wanted),
        size=sum(items[index].size for index in wanted),
        done_items=len(kept),
        done_size=sum(item.size for item in kept),
    )
    started = time.monotonic()
    try:
        work = _Work(job, stage, earlier)
        for index, part in LocalEngine().run(work, pending):
            folder.save_part(stage.name, index, part, item=item_digest(items[index]))
            progress.finished(items[index].name, items[index].size)
    finally:
        progress.end()
        seconds = time.monotonic() - started
        record.stages[stage.name] = went.model_copy(update={"seconds": went.seconds + seconds})
        record.seconds += seconds
        if job.model.halvings:
            least = min(job.model.halvings)
            record.notes.append(
                f"memory ran out in stage {stage.name}: passes of {least} tokens from there on"
            )
            job.model.halvings.clear()
        record.peak_bytes = max(record.peak_bytes, peak_bytes(job.model.device))
        folder.save_record(record)


class _Work:
    """What an engine calls for each item; an object, so that an engine can send it to a worker."""

    def __init__(self, job: Job, stage: Stage, earlier: dict[str, xr.Dataset]) -> None:
        self.model, self.settings, self.stage, self.earlier = job.model, job.settings, stage, earlier

    def __call__(self, item: WorkItem) -> xr.Dataset:
        return self.stage.measure(self.model, item, self.settings, self.earlier)


def item_digest(item: WorkItem) -> str:
    """Names what a work item asks, so that a part can be told from another item's."""
    return digest(item.model_dump(mode="json"))


def combined(
    folder: RunStore, stage: Stage, items: Sequence[WorkItem], *, only: Sequence[int] | None = None
) -> xr.Dataset:
    """The result of a stage from its saved parts, in item order."""
    indices = range(len(items)) if only is None else sorted(only)
    parts = (folder.part(stage.name, index, item=item_digest(items[index])) for index in indices)
    if not indices:
        return xr.Dataset()
    return reduce(stage.combine, parts) if stage.combine else concatenate(list(parts), along=stage.along)


def signed(result: xr.Dataset, record: RunRecord) -> xr.Dataset:
    """The result with the names that let it be read alone: experiment, model, settings, run.json."""
    return result.assign_attrs(
        experiment=record.asked.experiment,
        model=record.facts["name"],
        settings=json.dumps(record.asked.settings),
        asked=record.asked.model_dump_json(),
        machine=record.machine.model_dump_json(),
    )
