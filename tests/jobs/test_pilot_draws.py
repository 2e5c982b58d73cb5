"""A run whose number of draws pilot draws fix is planned, stopped and resumed as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.conftest import Counting, items_left_after
from layerscope.jobs import running
from layerscope.jobs.planning import plan
from layerscope.jobs.prepare import Job, prepare
from layerscope.jobs.request import Request
from quick import QUICK


@pytest.fixture
def job(tiny_model: Any, prompts_file: Path) -> Job:
    settings = QUICK | {"samples": "auto", "precision": 0.2, "most_samples": 12}
    return prepare(Request("causal_trace", model=tiny_model, prompts=str(prompts_file), settings=settings))


@pytest.mark.parametrize("stop", [6, 11])
def test_stopped_among_the_pilot_draws_or_after_it_goes_on_to_the_same_bits(
    tmp_path: Path, job: Job, stop: int
) -> None:
    assert items_left_after(job, tmp_path, stop) == 16 - stop


def test_a_plan_counts_the_pilot_draws(tmp_path: Path, job: Job) -> None:
    found = plan(job, tmp_path)

    assert [stage.stage for stage in found.stages] == ["clean", "pilot", "noised", "trace"]
    rest = Counting()
    running.run(job, tmp_path, rest)
    assert rest.items == []
