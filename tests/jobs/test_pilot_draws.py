"""A run whose number of draws pilot draws fix is planned, stopped and resumed as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.conftest import assert_same_bits
from jobs.test_running import Counting
from layerscope.jobs import running
from layerscope.jobs.planning import plan
from layerscope.jobs.prepare import Job, prepare
from layerscope.jobs.progress import Silent
from layerscope.results.store import runs_below
from quick import QUICK


@pytest.fixture
def job(tiny_model: Any, prompts_file: Path) -> Job:
    settings = QUICK | {"samples": "auto", "precision": 0.2, "most_samples": 12}
    return prepare("causal_trace", model=tiny_model, prompts=str(prompts_file), settings=settings)


@pytest.mark.parametrize("stop", [6, 11])
def test_stopped_among_the_pilot_draws_or_after_it_goes_on_to_the_same_bits(
    tmp_path: Path, job: Job, stop: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        running.run(job, tmp_path / "stopped", Counting(stop_after=stop))
    (folder,) = runs_below(tmp_path / "stopped")
    rest = Counting()

    running.resume(folder.path, rest, model=job.model)

    assert len(rest.items) == 16 - stop
    assert_same_bits(folder.result(), running.run(job, tmp_path / "calm", Silent()).result())


def test_a_plan_counts_the_pilot_draws(tmp_path: Path, job: Job) -> None:
    found = plan(job, tmp_path)

    assert [stage.stage for stage in found.stages] == ["clean", "pilot", "noised", "trace"]
    rest = Counting()
    running.run(job, tmp_path, rest)
    assert rest.items == []
