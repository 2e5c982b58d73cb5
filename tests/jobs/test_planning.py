from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.conftest import Counting, assert_same_bits
from layerscope.jobs import forecast, planning, running
from layerscope.jobs.forecast import deciding
from layerscope.jobs.listing import lines_of_plan
from layerscope.jobs.planning import plan
from layerscope.jobs.plans import Plan, StagePlan
from layerscope.jobs.prepare import Job, prepare
from layerscope.jobs.progress import Silent
from layerscope.jobs.request import Request
from layerscope.results.store import RunFolder
from layerscope.runs.memory_limits import Limit
from quick import QUICK


@pytest.fixture
def job(tiny_model: Any, prompts_file: Path) -> Job:
    return prepare(Request("causal_trace", model=tiny_model, prompts=str(prompts_file), settings=QUICK))


def _as_if_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stage is so quick that it is run whole; no more of it is measured than tells its time."""
    monkeypatch.setattr(planning, "STAGE_SECONDS", 0.0)
    monkeypatch.setattr(planning, "DECIDING_SECONDS", 0.0)
    monkeypatch.setattr(forecast, "_UNEVEN", 0)


def test_a_folded_stage_can_be_planned_unfinished(
    tmp_path: Path, state_mean: str, tiny_model: Any, passages_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_if_slow(monkeypatch)
    job = prepare(Request(state_mean, model=tiny_model, passages=str(passages_file)))

    found = plan(job, tmp_path / "planned")
    folder = running.run(job, tmp_path / "planned", Silent())

    assert [(s.items, s.measured, s.exact) for s in found.stages] == [(5, 2, True), (5, 0, True)]
    assert_same_bits(folder.result(), running.run(job, tmp_path / "unplanned", Silent()).result())


def test_a_plan_of_a_small_run_runs_it_all_but_the_conclusion(
    tmp_path: Path, job: Job, complete_run: Path
) -> None:
    found = plan(job, tmp_path)
    rest = Counting()
    folder = running.run(job, tmp_path, rest)

    assert [(stage.items, stage.measured, stage.exact) for stage in found.stages] == [(4, 4, True)] * 3
    assert found.folder == folder.path
    assert rest.items == []
    assert_same_bits(folder.result(), RunFolder(complete_run).result())


def test_a_plan_of_a_long_run_keeps_what_it_ran_and_the_run_does_the_rest(
    tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_if_slow(monkeypatch)

    found = plan(job, tmp_path)
    rest = Counting()
    running.run(job, tmp_path, rest)

    # Two clean runs show what the other stages are about; these are scaled up from that half, and what
    # was tried for them rests on an unfinished stage, so it is not kept.
    assert [(s.items, s.measured, s.exact) for s in found.stages] == [
        (4, 2, True),
        (4, 0, False),
        (4, 0, False),
    ]
    assert len(rest.items) == 10
    assert found.peak_bytes > 1e6
    assert found.part_bytes > 1e3
    assert found.seconds > 0


def test_a_stage_that_takes_a_few_texts_does_not_grow_with_all(
    tmp_path: Path, tiny_model: Any, passages_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_if_slow(monkeypatch)
    settings = {"mean_passages": 4, "ablated_passages": 2, "ablations": ["skip"]}
    job = prepare(Request("layer_ablation", model=tiny_model, passages=str(passages_file), settings=settings))

    found = plan(job, tmp_path)

    # Two of four means were measured, of five texts; which passages are ablated they do not decide.
    assert [(s.items, s.measured, s.exact) for s in found.stages] == [(4, 2, True), (2, 0, True)]


def test_a_plan_does_not_despair_where_the_first_prompts_are_unfit(
    tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_if_slow(monkeypatch)
    wrong = {"prompt": "the red fox met the dog", "subject": "fox", "answer": " zzz"}
    right = {"prompt": "the small bird sang to", "subject": "bird", "answer": ""}
    job = prepare(Request("causal_trace", model=tiny_model, prompts=[wrong, right], settings=QUICK))

    found = plan(job, tmp_path)

    assert [(stage.items, stage.exact) for stage in found.stages] == [(2, True), (1, True), (1, True)]
    assert running.run(job, tmp_path, Silent()).record.state == "complete"


def test_workers_share_the_items_of_a_stage_and_no_more_than_there_are(tmp_path: Path) -> None:
    stages = (
        StagePlan("one", items=10, measured=2, seconds=100.0, spent=20.0, exact=True),
        StagePlan("whole", items=1, measured=0, seconds=30.0, spent=0.0, exact=True),
    )
    found = Plan(tmp_path, stages, load_seconds=0.0, peak_bytes=0, part_bytes=0, path="branches")

    assert found.seconds_with(0) == found.seconds_left == 110
    assert found.seconds_with(2) == 80 / 2 + 30
    assert found.seconds_with(40) == 80 / 10 + 30
    assert "70 s with 2 workers" in next(lines_of_plan("x", found, 2))


def test_what_cannot_do_with_a_few_parts_is_told_by_its_operations(
    tmp_path: Path, tiny_model: Any, passages_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_if_slow(monkeypatch)
    job = prepare(Request("trigger_examples", model=tiny_model, passages=str(passages_file)))

    found = {stage.stage: stage for stage in plan(job, tmp_path).stages}

    # The census wants the values of all four layers, of which two were measured.
    assert (found["values"].measured, found["values"].items) == (2, 4)
    assert not found["census"].exact
    speed = found["values"].operations / found["values"].seconds
    assert found["census"].seconds == pytest.approx(found["census"].operations / speed)
    assert found["contexts"].items == 4


def test_the_stages_that_decide_what_others_have_are_found(job: Job) -> None:
    assert deciding(job.experiment, job.inputs, job.settings) == {"clean"}


def test_a_plan_says_where_memory_will_not_do(tmp_path: Path) -> None:
    group = Limit(int(5e9), "this process's control group")
    found = Plan(
        tmp_path, (), 0.0, peak_bytes=0, part_bytes=0, path="branches", process_bytes=int(2e9), limit=group
    )

    assert found.beyond_memory(0) == found.beyond_memory(1) == ""
    says = "3 processes may need 6.0 GB, this process's control group gives 5.0 GB"
    assert found.beyond_memory(2) == says
    assert any(says in line for line in lines_of_plan("x", found, 2))
