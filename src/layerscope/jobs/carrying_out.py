"""Carry runs out: stages, items, parts, conclusion. Resuming is doing the same again.

Every part is saved as soon as it is there, and results are always put together from the saved parts, so an
interrupted run and an uninterrupted one give the same bytes, whichever engine carried them out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import xarray as xr

from layerscope.engines.engine import Engine, Outcome, Task
from layerscope.engines.local import LocalEngine
from layerscope.errors import LayerscopeError
from layerscope.jobs import worker
from layerscope.jobs.measuring import (
    StageRun,
    combined,
    concluded,
    differing,
    item_digest,
    measured,
    threads,
)
from layerscope.jobs.prepare import Job, this_machine
from layerscope.jobs.progress import Progress
from layerscope.results.files import remove_leftovers
from layerscope.results.record import RunRecord, now
from layerscope.results.store import RunFolder, RunStore

_FIRST_SECONDS, _LEAST_SECONDS, _TIMES_LONGER = 3600.0, 300.0, 50.0


def carry_out(job: Job, store: RunStore, progress: Progress, engine: Engine | None = None) -> None:
    """Measure what is not yet measured, conclude, and save.

    Raises:
        LayerscopeError: what the run was refused for; what it measured until then is kept.
    """
    error = carry_all_out([(job, store)], progress, engine or LocalEngine())[0]
    if error is not None:
        raise error


def carry_all_out(
    runs: Sequence[tuple[Job, RunStore]], progress: Progress, engine: Engine
) -> list[LayerscopeError | None]:
    """The same for several runs, whose items share one queue; returns why each was refused, or None.

    A run goes on until nothing of it can be sent for now; then comes the one that will take longest, by the
    first item of each. So no worker waits for another run's last item.
    """
    courses = [_Course(number, job, store, engine) for number, (job, store) in enumerate(runs)]
    shown = _EachStage(progress) if len(courses) == 1 else _AllRuns(progress, courses)
    queue = _Queue(courses)
    with ExitStack() as held:
        for course in courses:
            held.enter_context(course.held(shown))
        shown.begin()
        held.callback(shown.end)
        while True:
            while engine.has_room and (task := queue.next()) is not None:
                engine.send(task)
            if not queue.waits:
                break
            outcome = engine.outcome()
            queue.hear(outcome)
            number, index = _place(outcome)
            shown.heard(courses[number], index)
    return [course.error for course in courses]


class _Course:
    """One run on its way: its stages one after another, then its conclusion."""

    def __init__(self, number: int, job: Job, store: RunStore, engine: Engine) -> None:
        self.number, self.job, self.store, self.engine = number, job, store, engine
        self.stage: StageRun | None = None
        self.error: LayerscopeError | None = None
        self.over = False
        self._concluding = False
        self._earlier: dict[str, xr.Dataset] = {}

    @property
    def name(self) -> str:
        """What is told of it."""
        return f"{self.job.experiment.name} on {self.job.model.facts.name}"

    @contextmanager
    def held(self, shown: _Shown) -> Iterator[None]:
        """Hold model and folder; afterwards the record says how far the run has come."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.job.model.in_use())
                stack.enter_context(self.store.writing())
                stack.enter_context(threads(self.store.record.machine.threads))
                self._shown = shown
                self.record = _begun(self.job, self.store)
                self._stages = self._going()
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
        if self.engine.workers:
            work: tuple[Callable[..., object], tuple[object, ...]] = (
                worker.measured_item,
                (worker.AtWork.of(self.job, self.store), stage.stage.name, index, item_digest(item)),
            )
        else:
            work = measured, (self.job, self.store, stage.stage, index, item, stage.earlier)
        expected = stage.seconds_of([index])
        seconds = _FIRST_SECONDS if expected is None else max(_LEAST_SECONDS, _TIMES_LONGER * expected)
        return Task((self.number, index), f"{self.name}, {stage.stage.name}: {item.name}", *work, seconds)

    def _task_of_conclusion(self) -> Task:
        self._concluding = True
        if self.engine.workers:
            work: tuple[Callable[..., object], tuple[object, ...]] = (
                worker.concluded_run,
                (worker.AtWork.of(self.job, self.store),),
            )
        else:
            work = concluded, (self.job, self.store, self.record, self._earlier)
        return Task((self.number, None), f"{self.name}: conclusion", *work)

    def hear(self, outcome: Outcome) -> None:
        """Take note of what became of a task."""
        _, index = _place(outcome)
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

    def left(self) -> float | None:
        """Expected seconds of what is known to be left; None before anything was measured."""
        if self.over or self.stage is None:
            return 0.0
        return self.stage.seconds_of([*self.stage.pending, *self.stage.under_way])


def _begun(job: Job, store: RunStore) -> RunRecord:
    record = store.record
    here = this_machine(job.model.device, job.experiment)
    differences = differing(record.machine.model_dump(), here.model_dump())
    if record.stages and differences:
        record.notes.append(f"resumed {now()} with other {', '.join(differences)}")
    record.state, record.result, record.refused = "running", None, ""
    store.save_record(record)
    return record


class _Queue:
    """Which task comes next."""

    def __init__(self, courses: Sequence[_Course]) -> None:
        self._untried = list(courses) if len(courses) > 1 else []
        self._waiting, self._active = list(courses), list[_Course]()
        self._courses, self.waits = courses, 0

    def next(self) -> Task | None:
        """The first item of a run that was not yet tried; else the first that can be sent."""
        task = None
        while self._untried and task is None:
            task = self._untried.pop(0).next()
        while task is None:
            task = next((found for course in self._active if (found := course.next()) is not None), None)
            if task is None:
                if not self._waiting:
                    return None
                longest = max(self._waiting, key=lambda course: _or_long(course.left()))
                self._waiting.remove(longest)
                self._active.append(longest)
        self.waits += 1
        return task

    def hear(self, outcome: Outcome) -> None:
        """Take note of what became of a task."""
        self.waits -= 1
        self._courses[_place(outcome)[0]].hear(outcome)


def _place(outcome: Outcome) -> tuple[int, int | None]:
    """Number of the run, and of the item; None for the conclusion."""
    assert isinstance(outcome.key, tuple)
    return outcome.key


def _or_long(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds


class _EachStage:
    """One run: each stage is shown by itself."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self) -> None:
        """Nothing to show yet."""

    def stage_begins(self, course: _Course, stage: StageRun) -> None:
        """Announce the stage."""
        stage.begin(self._progress)

    def heard(self, course: _Course, index: int | None) -> None:
        """An item more."""
        if index is not None and course.stage is not None:
            item = course.stage.items[index]
            self._progress.finished(item.name, item.size)

    def stage_ends(self, course: _Course, stage: StageRun) -> None:
        """The stage is over."""
        self._progress.end()

    def end(self) -> None:
        """Nothing is left to close."""


class _AllRuns:
    """Many runs: one bar over all, by the seconds that they have taken and are expected to take."""

    def __init__(self, progress: Progress, courses: Sequence[_Course]) -> None:
        self._progress, self._courses = progress, courses
        self._spent, self._shown, self._over = 0.0, 0.0, 0
        self._began: dict[tuple[int, str], float] = {}

    def begin(self) -> None:
        """Announce them all."""
        self._progress.begin(
            "all experiments", items=len(self._courses), size=1.0, done_items=0, done_size=0.0, noun="runs"
        )
        self._last = time.monotonic()

    def stage_begins(self, course: _Course, stage: StageRun) -> None:
        """Stages are not shown one by one."""

    def heard(self, course: _Course, index: int | None) -> None:
        """So much more of the whole is done."""
        over = sum(course.over for course in self._courses)
        share = self._share()
        self._progress.finished(course.name, max(0.0, share - self._shown), items=over - self._over)
        self._shown, self._over = max(self._shown, share), over

    def _share(self) -> float:
        done = left = 0.0
        for course in self._courses:
            spent = course.record.seconds + (course.stage.seconds if course.stage else 0.0)
            done += spent
            left += _or(course.left(), 0.0) if not course.over else 0.0
            # Stages that have not begun are taken to cost what those before them did.
            stages = len(course.job.experiment.stages)
            begun = max(1, len(course.record.stages) + (course.stage is not None))
            left += 0.0 if course.over else (spent + _or(course.left(), 0.0)) * max(0, stages - begun) / begun
        return done / (done + left) if done + left else 0.0

    def stage_ends(self, course: _Course, stage: StageRun) -> None:
        """Stages are not shown one by one."""

    def end(self) -> None:
        """All is over."""
        self._progress.end()


def _or(seconds: float | None, otherwise: float) -> float:
    return otherwise if seconds is None else seconds


_Shown = _EachStage | _AllRuns
