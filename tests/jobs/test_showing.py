from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from layerscope.jobs import showing
from layerscope.jobs.course import Course
from layerscope.jobs.progress import Silent
from layerscope.jobs.showing import AllRuns
from layerscope.results.record import StageRecord


class Shares(Silent):
    """Keeps how much of all was said to be done."""

    def __init__(self) -> None:
        self.share = 0.0

    def finished(self, name: str, size: float, items: int = 1) -> None:
        self.share += size


def _course(**stages: StageRecord) -> Course:
    """A run between two stages: those given are over."""
    course = object.__new__(Course)
    record = SimpleNamespace(stages=stages, seconds=sum(each.seconds for each in stages.values()))
    named = SimpleNamespace(name="made")
    job = SimpleNamespace(experiment=named, model=SimpleNamespace(facts=named), inputs=None, settings=None)
    vars(course).update(record=record, job=job, stage=None, over=False)
    return course


def test_stages_and_runs_that_have_not_begun_are_left_by_their_operations(monkeypatch: Any) -> None:
    sizes = {"one": [10.0], "two": [40.0, 40.0]}
    monkeypatch.setattr(showing, "expected_sizes", lambda *_: sizes)
    shares = Shares()
    begun, waiting = _course(one=StageRecord(items=1, size=10.0, seconds=5.0)), _course()
    shown = AllRuns(shares, [begun, waiting])
    shown.begin()

    shown.heard(begun, 0)

    # Half a second a unit: 5 s done; 40 s of the run that began, 45 s of the one that waits.
    assert shares.share == 5 / (5 + 40 + 45)
