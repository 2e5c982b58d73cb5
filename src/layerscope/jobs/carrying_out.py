"""Carry runs out: stages, items, parts, conclusion. Resuming is doing the same again.

Every part is saved as soon as it is there, and results are always put together from the saved parts, so an
interrupted run and an uninterrupted one give the same bytes, whichever engine carried them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from math import inf

from layerscope.engines.engine import Engine, Outcome, Task
from layerscope.engines.local import LocalEngine
from layerscope.errors import LayerscopeError
from layerscope.jobs.course import Course, place_of
from layerscope.jobs.prepare import Job
from layerscope.jobs.progress import Progress
from layerscope.jobs.showing import AllRuns, EachStage
from layerscope.results.store import RunStore


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
    courses = [Course(number, job, store, engine) for number, (job, store) in enumerate(runs)]
    shown = EachStage(progress) if len(courses) == 1 else AllRuns(progress, courses)
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
            number, index = place_of(outcome)
            shown.heard(courses[number], index)
    return [course.error for course in courses]


class _Queue:
    """Which task comes next."""

    def __init__(self, courses: Sequence[Course]) -> None:
        self._untried = list(courses) if len(courses) > 1 else []
        self._waiting, self._active = list(courses), list[Course]()
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
                longest = max(self._waiting, key=lambda course: inf if course.left is None else course.left)
                self._waiting.remove(longest)
                self._active.append(longest)
        self.waits += 1
        return task

    def hear(self, outcome: Outcome) -> None:
        """Take note of what became of a task."""
        self.waits -= 1
        self._courses[place_of(outcome)[0]].hear(outcome)
