"""Measure: the items of a stage, one part each, and what follows from all parts."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

import torch
import xarray as xr

from layerscope.contract import Earlier, Stage, WorkItem
from layerscope.jobs.prepare import Job
from layerscope.jobs.progress import Progress
from layerscope.models.memory import lack_is_told
from layerscope.results.combine import concatenate
from layerscope.results.record import RunRecord, StageRecord, digest
from layerscope.results.store import RunStore
from layerscope.runs import peak_bytes


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """This many threads for torch (None: as there are), and as many as before afterwards: they decide last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
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


@dataclass(frozen=True)
class Measured:
    """How the measuring of one item went, wherever it was done.

    Attributes:
        seconds: how long it took.
        peak_bytes: largest memory of the process so far.
        halvings: bounds on tokens of a pass that memory forced.
    """

    seconds: float
    peak_bytes: int
    halvings: tuple[int, ...]


def measured(
    job: Job, folder: RunStore, stage: Stage, index: int, item: WorkItem, earlier: Earlier
) -> Measured:
    """Measure one item of a stage and keep its part."""
    started = time.monotonic()
    with lack_is_told(f"{job.experiment.name}, {stage.name}: {item.name}"):
        part = stage.measure(job.model, item, job.settings, earlier)
    folder.save_part(stage.name, index, part, item=item_digest(item))
    halvings = tuple(job.model.halvings)
    job.model.halvings.clear()
    return Measured(time.monotonic() - started, peak_bytes(job.model.device), halvings)


def concluded(job: Job, folder: RunStore, record: RunRecord, earlier: Earlier) -> str:
    """Conclude a run whose stages are all measured, and keep the result; returns its digest."""
    return folder.save_result(signed(job.experiment.conclude(earlier, job.settings), record))


class StageRun:
    """The items of one stage of a run, on their way.

    Attributes:
        stage: the stage.
        items: all of its items.
        earlier: results of the stages before.
        pending: indices of the items that are neither measured nor under way.
        under_way: indices of those that are being measured.
    """

    def __init__(
        self,
        job: Job,
        folder: RunStore,
        record: RunRecord,
        stage: Stage,
        items: Sequence[WorkItem],
        earlier: Earlier,
        only: Sequence[int] | None = None,
    ) -> None:
        """A stage that is about to be measured.

        Args:
            job: what to measure.
            folder: where parts go.
            record: brought up to date by `close`.
            stage: the stage.
            items: all of its items.
            earlier: results of the stages before.
            only: indices to measure, where not all are wanted (a plan).
        """
        self.job, self.folder, self.record = job, folder, record
        self.stage, self.items, self.earlier = stage, items, earlier
        done = folder.done(stage.name)
        self.wanted = range(len(items)) if only is None else only
        self.kept = [index for index in self.wanted if index in done]
        self.pending = deque(index for index in self.wanted if index not in done)
        self.under_way: set[int] = set()
        self.seconds = self.size = 0.0
        self._halvings: list[int] = []

    @property
    def name(self) -> str:
        """What progress shows."""
        return f"{self.job.experiment.name} · {self.stage.name}"

    def begin(self, progress: Progress) -> None:
        """Announce it."""
        progress.begin(
            self.name,
            items=len(self.wanted),
            size=sum(self.items[index].size for index in self.wanted),
            done_items=len(self.kept),
            done_size=sum(self.items[index].size for index in self.kept),
        )

    def take(self) -> int:
        """The next item; it is under way from now on."""
        index = self.pending.popleft()
        self.under_way.add(index)
        return index

    def finished(self, index: int, how: Measured) -> None:
        """Take note of an item that is measured."""
        self.under_way.remove(index)
        self.seconds += how.seconds
        self.size += self.items[index].size
        self.record.peak_bytes = max(self.record.peak_bytes, how.peak_bytes)
        self._halvings += how.halvings

    def seconds_of(self, indices: Sequence[int]) -> float | None:
        """Expected time of some items, at the rate so far; None before any was measured."""
        if not self.size:
            return None
        return self.seconds / self.size * sum(self.items[index].size for index in indices)

    def close(self) -> None:
        """Bring the record up to date, also when the work was interrupted, and save it."""
        went = self.record.stages.get(self.stage.name, StageRecord(items=0, size=0.0))
        self.record.stages[self.stage.name] = StageRecord(
            items=len(self.items),
            size=sum(item.size for item in self.items),
            seconds=went.seconds + self.seconds,
        )
        self.record.seconds += self.seconds
        if self._halvings:
            self.record.notes.append(
                f"memory ran out in stage {self.stage.name}: passes of {min(self._halvings)} tokens from there on"
            )
        self.seconds, self._halvings = 0.0, []
        self.folder.save_record(self.record)


def measure(going: StageRun, progress: Progress) -> None:
    """Measure the items of a stage here, one after another, saving each part and at last the record."""
    going.begin(progress)
    try:
        while going.pending:
            index = going.take()
            item = going.items[index]
            going.finished(index, measured(going.job, going.folder, going.stage, index, item, going.earlier))
            progress.finished(item.name, item.size)
    finally:
        progress.end()
        going.close()


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
