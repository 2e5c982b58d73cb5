"""How far runs have come that are being carried out: one by its stages, many by their time."""

from __future__ import annotations

from collections.abc import Sequence

from layerscope.jobs.course import Course
from layerscope.jobs.measuring import StageRun
from layerscope.jobs.progress import Progress


class EachStage:
    """One run: each stage is shown by itself."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self) -> None:
        """Nothing to show yet."""

    def stage_begins(self, course: Course, stage: StageRun) -> None:
        """Announce the stage."""
        stage.begin(self._progress)

    def heard(self, course: Course, index: int | None) -> None:
        """An item more."""
        if index is not None and course.stage is not None:
            item = course.stage.items[index]
            self._progress.finished(item.name, item.size)

    def stage_ends(self, course: Course, stage: StageRun) -> None:
        """The stage is over."""
        self._progress.end()

    def end(self) -> None:
        """Nothing is left to close."""


class AllRuns:
    """Many runs: one bar over all, by the seconds that they have taken and are expected to take."""

    def __init__(self, progress: Progress, courses: Sequence[Course]) -> None:
        self._progress, self._courses = progress, courses
        self._share, self._over = 0.0, 0

    def begin(self) -> None:
        """Announce them all."""
        self._progress.begin(
            "all experiments", items=len(self._courses), size=1.0, done_items=0, done_size=0.0, noun="runs"
        )

    def stage_begins(self, course: Course, stage: StageRun) -> None:
        """Stages are not shown one by one."""

    def stage_ends(self, course: Course, stage: StageRun) -> None:
        """Stages are not shown one by one."""

    def heard(self, course: Course, index: int | None) -> None:
        """So much more of the whole is done."""
        over = sum(each.over for each in self._courses)
        done, left = (sum(each) for each in zip(*map(_done_and_left, self._courses), strict=True))
        share = max(self._share, done / (done + left) if done + left else 0.0)
        self._progress.finished(course.name, share - self._share, items=over - self._over)
        self._share, self._over = share, over

    def end(self) -> None:
        """All is over."""
        self._progress.end()


def _done_and_left(course: Course) -> tuple[float, float]:
    """Seconds of a run; stages that have not begun are taken to cost what those before them do."""
    if course.over:
        return course.spent, 0.0
    left = course.left or 0.0
    begun = len({*course.record.stages, *([course.stage.stage.name] if course.stage else [])})
    others = len(course.job.experiment.stages) - begun
    return course.spent, left + (course.spent + left) * others / max(begun, 1)
