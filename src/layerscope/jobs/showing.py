"""How far runs have come that are being carried out: one by its stages, many by their time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layerscope.jobs.course import Course
from layerscope.jobs.forecast import expected_sizes
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
        jobs = [course.job for course in self._courses]
        self._sizes = [expected_sizes(job.experiment, job.inputs, job.settings) for job in jobs]
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
        done, left = self._done_and_left()
        share = max(self._share, done / (done + left) if done + left else 0.0)
        self._progress.finished(course.name, share - self._share, items=over - self._over)
        self._share, self._over = share, over

    def _done_and_left(self) -> tuple[float, float]:
        """Seconds of all runs: stages that have not begun take as long for their size as the run's others do."""
        went = [course.went for course in self._courses]
        seconds, size = (sum(each) for each in zip(*went, strict=True))
        left = 0.0
        for course, sizes, (own_seconds, own_size) in zip(self._courses, self._sizes, went, strict=True):
            if not course.over:
                rate = own_seconds / own_size if own_size else seconds / max(size, 1e-9)
                left += _left_of(course, sizes, rate)
        return sum(course.spent for course in self._courses), left

    def end(self) -> None:
        """All is over."""
        self._progress.end()


def _left_of(course: Course, sizes: Mapping[str, list[float] | None], rate: float) -> float:
    """Expected seconds of a run that is not over, at so many seconds for each unit of size."""
    now = course.stage.stage.name if course.stage else None
    here = course.left if now and course.left is not None else sum(sizes.get(now or "") or ()) * rate
    begun = {*course.record.stages, now}
    return here + sum(sum(some or ()) * rate for name, some in sizes.items() if name not in begun)
