"""One run on its way through its stages, as tasks that any engine can carry out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import Protocol, runtime_checkable

import xarray as xr

from layerscope.engines.engine import Engine, Outcome, Task
from layerscope.errors import LayerscopeError
from layerscope.jobs import worker
from layerscope.jobs.measuring import (
    Measured,
    StageRun,
    combined,
    concluded,
    differing,
    item_digest,
    measured,
    threads,
)
from layerscope.jobs.prepare import Job, this_machine
from layerscope.results.files import remove_leftovers
from layerscope.results.record import RunRecord, now
from layerscope.results.store import RunFolder, RunStore

_FIRST_SECONDS, _LEAST_SECONDS, _TIMES_LONGER = 3600.0, 300.0, 50.0
"""When an item is taken to hang: before any of its stage was measured; at least; and times what is expected."""


@runtime_checkable
class Shown(Protocol):
    """Who shows how far runs have come is told when their stages begin and end."""

    def stage_begins(self, course: Course, stage: StageRun) -> None:
        """A stage of this run begins."""

    def stage_ends(self, course: Course, stage: StageRun) -> None:
        """It is over, or was interrupted."""


class Course:
    """One run on its way: its stages one after another, then its conclusion."""

    def __init__(self, number: int, job: Job, store: RunStore, engine: Engine) -> None:
        self.number, self.job, self.store, self.engine = number, job, store, engine
        self.stage: StageRun | None = None
        self.error: LayerscopeError | None = None
        self.over = False
        self.record = job.record
        self._concluding = False
        self._earlier: dict[str, xr.Dataset] = {}

    @property
    def name(self) -> str:
        """What is told of it."""
        return f"{self.job.experiment.name} on {self.job.model.facts.name}"

    @contextmanager
    def held(self, shown: Shown) -> Iterator[None]:
        """Hold model and folder; afterwards the record says how far the run has come."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.job.model.in_use())
                stack.enter_context(self.store.writing())
                self._shown, self._stages = shown, self._going()
                with threads(self.store.record.machine.threads):
                    self.record = _begun(self.job, self.store)
            except LayerscopeError as error:  # another process writes there
                self.error, self.over = error, True
            try:
                yield
            finally:
                if self.stage is not None:
                    self._end_stage(self.stage)
                if self.engine.workers and isinstance(self.store, RunFolder) and not self.over:
                    remove_leftovers(self.store.path)

    def _going(self) -> Iterator[StageRun]:
        """Each stage that has something to measure; the results of all afterwards, where they are needed here."""
        stages = self.job.experiment.stages
        for place, stage in enumerate(stages):
            items = list(stage.items(self.job.inputs, self.job.settings, self._earlier))
            if items:  # what was not asked for has none
                yield StageRun(self.job, self.store, self.record, stage, items, dict(self._earlier))
            if place < len(stages) - 1 or not self.engine.workers:
                self._earlier[stage.name] = combined(self.store, stage, items)

    def _end_stage(self, stage: StageRun) -> None:
        self._shown.stage_ends(self, stage)
        stage.close()
        self.stage = None

    def next(self) -> Task | None:
        """A task that can be sent now; None while what is under way must come first, and at the end."""
        while not self.over and not self._concluding:
            if self.stage is not None:
                if self.stage.pending:
                    return self._task_of_item(self.stage)
                if self.stage.under_way:
                    return None
                self._end_stage(self.stage)
            with self._refusing(), threads(self.record.machine.threads):
                self.stage = next(self._stages, None)
                if self.stage is not None:
                    self._shown.stage_begins(self, self.stage)
                else:
                    return self._task_of_conclusion()
        return None

    def _task_of_item(self, stage: StageRun) -> Task:
        index = stage.take()
        item = stage.items[index]
        expected = stage.seconds_of([index])
        return Task(
            key=(self.number, index),
            name=f"{self.name}, {stage.stage.name}: {item.name}",
            work=worker.measured_item if self.engine.workers else self._measured_here,
            arguments=(self._at, stage.stage.name, index, item_digest(item))
            if self.engine.workers
            else (stage, index),
            seconds=_FIRST_SECONDS if expected is None else max(_LEAST_SECONDS, _TIMES_LONGER * expected),
        )

    def _task_of_conclusion(self) -> Task:
        self._concluding = True
        return Task(
            key=(self.number, None),
            name=f"{self.name}: conclusion",
            work=worker.concluded_run if self.engine.workers else self._concluded_here,
            arguments=(self._at,) if self.engine.workers else (),
        )

    @cached_property
    def _at(self) -> worker.AtWork:
        return worker.AtWork.of(self.job, self.store)

    def _measured_here(self, stage: StageRun, index: int) -> Measured:
        with threads(self.record.machine.threads):
            return measured(self.job, self.store, stage.stage, index, stage.items[index], stage.earlier)

    def _concluded_here(self) -> str:
        with threads(self.record.machine.threads):
            return concluded(self.job, self.store, self.record, self._earlier)

    def hear(self, outcome: Outcome) -> None:
        """Take note of what became of a task."""
        _, index = place_of(outcome)
        with self._refusing():
            if outcome.error is not None:
                if index is not None and self.stage is not None:
                    self.stage.under_way.discard(index)
                raise outcome.error
            if index is None:
                self.over = True
                self.record.result = outcome.value
                self.record.state, self.record.finished = "complete", now()
                self.store.save_record(self.record)
            elif self.stage is not None:
                self.stage.finished(index, outcome.value)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """A run that is refused says so, and why; what it measured until then is kept."""
        try:
            yield
        except LayerscopeError as error:
            self.error, self.over = self.error or error, True
            if self.stage is not None:
                self._end_stage(self.stage)
            self.record.state, self.record.refused = "refused", str(self.error)
            with suppress(LayerscopeError):  # the disk may be what refused it
                self.store.save_record(self.record)

    @property
    def spent(self) -> float:
        """Seconds that measuring took, in all sessions."""
        return self.record.seconds + (self.stage.seconds if self.stage else 0.0)

    @property
    def went(self) -> tuple[float, float]:
        """Seconds and size of what was measured, in all sessions, as far as the record tells its size."""
        stage, stages = self.stage, self.record.stages
        now = stage.stage.name if stage else None
        over = [each for name, each in stages.items() if name != now]
        seconds, size = sum(each.seconds for each in over), sum(each.size for each in over)
        return (seconds + stage.seconds, size + stage.size) if stage else (seconds, size)

    @property
    def left(self) -> float | None:
        """Expected seconds of what is known to be left; None before anything was measured."""
        if self.over or self.stage is None:
            return 0.0
        return self.stage.seconds_of([*self.stage.pending, *self.stage.under_way])


def place_of(outcome: Outcome) -> tuple[int, int | None]:
    """Number of the run, and of the item; None for the conclusion."""
    assert isinstance(outcome.key, tuple)
    return outcome.key


def _begun(job: Job, store: RunStore) -> RunRecord:
    record = store.record
    here = this_machine(job.model.device, job.experiment)
    differences = differing(record.machine.model_dump(), here.model_dump())
    if record.stages and differences:
        record.notes.append(f"resumed {now()} with other {', '.join(differences)}")
    record.state, record.result, record.refused = "running", None, ""
    store.save_record(record)
    return record
