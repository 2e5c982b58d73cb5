"""Untrained twins beside a run: asked the same, found again, told, planned, and with workers the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import layerscope
from layerscope.cli.telling import told_of_a_twin
from layerscope.errors import LayerscopeError
from layerscope.jobs import running
from layerscope.jobs.prepare import prepare
from layerscope.jobs.request import Request
from layerscope.jobs.twins import twin_seeds
from layerscope.jobs.workers import number_of
from layerscope.results.store import RunFolder, runs_below
from layerscope.results.twins import twins_of
from quick import Command


def by_seed(folder: Path) -> dict[int | None, RunFolder]:
    return {run.record.asked.untrained: run for run in runs_below(folder)}


def test_twins_are_asked_what_their_model_is_asked_and_can_be_repeated(
    tiny: Path, prompts_file: Path, tmp_path: Path, command: Command
) -> None:
    asked = ("run", "logit_lens", "--model", tiny, "--prompts", prompts_file, "--out", tmp_path,
             "--set", "resamples=20", "--seed", 3)  # fmt: skip
    said = command(*asked, "--twins", 2)

    assert said.code == 0, said.err
    runs = by_seed(tmp_path)
    assert set(runs) == {None, 4, 5}
    own, *twins = (runs[seed].record for seed in (None, 4, 5))
    assert {record.asked.but_for_training() for record in twins} == {own.asked.but_for_training()}
    assert len({record.asked.weights for record in (own, *twins)}) == 3
    assert all(record.standing_first == own.standing_first for record in twins)
    assert running.replay(runs[4].path).verdict == "bitwise"
    assert list(twins_of(runs[None])) == [4, 5]
    other = prepare(
        Request("logit_lens", model=str(tiny), prompts=str(prompts_file), settings={"resamples": 21})
    )
    assert other.record.asked.but_for_training() != own.asked.but_for_training()

    before = {seed: run.record.finished for seed, run in runs.items()}
    assert command(*asked, "--twins", 3).code == 0
    again = by_seed(tmp_path)
    assert set(again) == {None, 4, 5, 6}
    assert {seed: again[seed].record.finished for seed in before} == before  # found, not run again


def test_untrained_twin_is_one_twin(tiny: Path, prompts_file: Path, tmp_path: Path, command: Command) -> None:
    for place, words in enumerate([("--untrained-twin",), ("--twins", 1)]):
        said = command("run", "logit_lens", "--model", tiny, "--prompts", prompts_file, "--set", "resamples=20",
                       "--out", tmp_path / str(place), *words)  # fmt: skip
        assert said.code == 0, said.err

    first, second = (by_seed(tmp_path / str(place)) for place in range(2))
    assert set(first) == set(second) == {None, 1}
    assert first[1].path.name == second[1].path.name


def test_no_twin_is_the_one_that_experiments_hold_the_model_against_inside() -> None:
    assert list(twin_seeds(0, 3)) == [1, 2, 3]
    assert 7 not in twin_seeds(7, 5)


@pytest.mark.slow
def test_workers_give_the_same_twins(
    tiny: Path, prompts_file: Path, tmp_path: Path, command: Command
) -> None:
    for workers in (0, 2):
        said = command("run", "logit_lens", "--model", tiny, "--prompts", prompts_file, "--twins", 2, "--threads",
                       1, "--set", "resamples=20", "--workers", workers, "--out", tmp_path / str(workers))  # fmt: skip
        assert said.code == 0, said.err

    alone, shared = (by_seed(tmp_path / str(workers)) for workers in (0, 2))
    assert {seed: run.record.result for seed, run in alone.items()} == {
        seed: run.record.result for seed, run in shared.items()
    }


def test_a_process_holds_a_twin_beside_its_model(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = sum(weight.numel() * weight.element_size() for weight in tiny_model.module.parameters())
    monkeypatch.setattr("layerscope.runs.machine.usable_cores", lambda: 8)
    beside = 1000 * weights
    monkeypatch.setattr("layerscope.jobs.workers._WITHOUT_WEIGHTS", beside)
    monkeypatch.setattr(
        "layerscope.models.memory.own_bytes", lambda module: None
    )  # of weights that are not mapped

    def processes(copies: int, **asked: bool) -> int:
        """Of as many processes as there is room for, all of whose models hold so many copies of the weights."""
        room = 3 * (copies * weights + beside) + copies * weights
        monkeypatch.setattr("layerscope.runs.budget.memory_bytes", lambda device: 2 * room)
        return number_of("auto", tiny_model, **asked)

    assert processes(1) == 3
    assert processes(2, twins=True) == 3
    assert processes(1, twins=True) == 2


def test_a_plan_counts_the_twins(tiny: Path, prompts_file: Path, tmp_path: Path, command: Command) -> None:
    said = command(
        "plan", "logit_lens", "--model", tiny, "--prompts", prompts_file, "--twins", 5, "--out", tmp_path
    )

    assert [line.partition(":")[0] for line in said.out.splitlines() if "of measuring" in line] == [
        "logit_lens",
        "logit_lens, each of 5 untrained twins",
    ]
    assert set(by_seed(tmp_path)) == {None, 1}  # one is enough to know what each costs


def test_from_python_the_result_is_the_model_s_and_its_twins_lie_beside_it(
    tiny_model: Any, prompts_file: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"resamples": 20, "progress": False}
    alone = layerscope.run("logit_lens", tiny_model, prompts_file, **asked)

    result = layerscope.run("logit_lens", tiny_model, prompts_file, out=tmp_path, untrained_twins=2, **asked)

    assert result.drop_attrs().identical(alone.drop_attrs())
    assert list(twins_of(by_seed(tmp_path)[None])) == [1, 2]
    with pytest.raises(LayerscopeError, match="kept in run folders"):
        layerscope.run("logit_lens", tiny_model, prompts_file, untrained_twins=2, **asked)


def test_what_the_twin_cannot_be_asked_is_told_and_stops_nothing(
    tiny_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = LayerscopeError("no prompt is left", found="none", expected="one", hint="another")

    with told_of_a_twin(layerscope.untrained_twin(tiny_model), "logit_lens"):
        raise refusal
    assert "logit_lens on the untrained twin: no prompt is left" in capsys.readouterr().err
    with pytest.raises(LayerscopeError, match="no prompt is left"), told_of_a_twin(tiny_model, "logit_lens"):
        raise refusal
