from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import layerscope
import zoo
from jobs.conftest import Counting, assert_same_bits
from layerscope.errors import LayerscopeError
from layerscope.jobs import running
from layerscope.jobs.prepare import Job, prepare
from layerscope.jobs.progress import Silent
from layerscope.jobs.request import Request
from layerscope.results.seal import sealed
from layerscope.results.store import RunFolder, runs_below
from quick import QUICK, Command


@pytest.fixture
def job(tiny_model: Any, prompts_file: Path) -> Job:
    return prepare(Request("causal_trace", model=tiny_model, prompts=str(prompts_file), settings=QUICK))


def test_a_run_is_carried_out_and_says_what_it_did(tmp_path: Path, job: Job) -> None:
    folder = running.run(job, tmp_path, Silent())

    record = folder.record
    assert record.state == "complete"
    assert record.finished
    assert {name: stage.items for name, stage in record.stages.items()} == {
        "clean": 4,
        "noised": 4,
        "trace": 4,
    }
    assert list(folder.result().prompt.values) == ["fox", "bird", "town", "stone"]
    assert json.loads(folder.result().attrs["settings"])["samples"] == 2


def test_the_folder_is_named_by_experiment_model_and_question(
    tmp_path: Path, job: Job, tiny_model: Any
) -> None:
    folder = running.folder_of(job, tmp_path)
    other = running.folder_of(
        prepare(Request("causal_trace", model=tiny_model, prompts="the *red fox* met", settings=QUICK)),
        tmp_path,
    )

    assert folder.path.name.startswith("causal_trace-tiny-")
    assert folder.path == running.folder_of(job, tmp_path).path
    assert other.path != folder.path


def test_asked_again_it_returns_at_once(saved: Path, job: Job) -> None:
    files = {path: path.stat().st_mtime_ns for path in saved.rglob("*")}
    again = Counting()
    folder = running.run(job, saved.parent, again)

    assert folder.path == saved
    assert again.items == []
    assert {path: path.stat().st_mtime_ns for path in saved.rglob("*")} == files


def test_stopped_by_ctrl_c_it_keeps_its_parts_and_goes_on(tmp_path: Path, job: Job, saved: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        running.run(job, tmp_path / "stopped", Counting(stop_after=6))
    rest = Counting()
    stopped = running.run(job, tmp_path / "stopped", rest)

    assert len(rest.items) == 6
    assert_same_bits(stopped.result(), RunFolder(saved).result())


def test_a_damaged_part_is_named_and_once_deleted_only_it_is_computed_again(tmp_path: Path, job: Job) -> None:
    with pytest.raises(KeyboardInterrupt):
        running.run(job, tmp_path, Counting(stop_after=11))
    (folder,) = runs_below(tmp_path)
    part = folder.part_path("noised", 2)
    part.write_bytes(part.read_bytes()[:-40])

    with pytest.raises(LayerscopeError, match=r"noised/000002\.npz"):
        running.resume(folder.path, Silent(), model=job.model)
    part.unlink()
    rest = Counting()
    running.resume(folder.path, rest, model=job.model)

    assert rest.items == ["town", "stone"]  # the deleted part, and the one that was still missing


def test_while_it_runs_the_record_vouches_for_no_result(saved: Path, job: Job) -> None:
    (saved / "result.nc").unlink()
    (saved / "parts" / "clean" / "000000.npz").unlink()

    with pytest.raises(KeyboardInterrupt):
        running.resume(saved, Counting(stop_after=1), model=job.model)

    assert (RunFolder(saved).record.state, RunFolder(saved).record.result) == ("running", None)


def test_a_deleted_result_is_concluded_from_its_parts(saved: Path) -> None:
    folder = RunFolder(saved)
    before, counting = folder.result(), Counting()
    (folder.path / "result.nc").unlink()

    running.resume(folder.path, counting)

    assert counting.items == []
    assert_same_bits(before, folder.result())


def test_threads_are_those_of_the_record_and_afterwards_the_callers(tmp_path: Path, job: Job) -> None:
    seen: list[int] = []

    def watched(*_: object) -> None:
        seen.append(torch.get_num_threads())
        raise KeyboardInterrupt  # two threads on busy cores are slow

    folder = running.folder_of(job, tmp_path)
    record = folder.record
    record.machine = record.machine.model_copy(update={"threads": 2})
    folder.save_record(record)
    first, *others = job.experiment.stages
    stages = (replace(first, measure=watched), *others)
    with pytest.raises(KeyboardInterrupt):
        running.run(replace(job, experiment=replace(job.experiment, stages=stages)), tmp_path, Silent())

    assert seen == [2]
    assert torch.get_num_threads() == 1


def test_a_resume_elsewhere_leaves_a_note(tmp_path: Path, job: Job) -> None:
    with pytest.raises(KeyboardInterrupt):
        running.run(job, tmp_path, Counting(stop_after=2))
    (folder,) = runs_below(tmp_path)
    record = folder.record
    record.machine = record.machine.model_copy(update={"code": "0" * 64})
    folder.save_record(record)

    running.resume(folder.path, Silent(), model=job.model)

    assert any("resumed" in note and "code: 000000000000 ->" in note for note in folder.record.notes)


# -- what has changed since -----------------------------------------------------------------------


def test_a_model_whose_weights_changed_is_refused(tmp_path: Path, tiny: Path, prompts_file: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    job = prepare(
        Request("causal_trace", model=str(tmp_path / "model"), prompts=str(prompts_file), settings=QUICK)
    )
    folder = running.folder_of(job, tmp_path)
    zoo.make("gpt2", seed=1).save_pretrained(tmp_path / "model")

    with pytest.raises(LayerscopeError, match="model has changed"):
        running.resume(folder.path, Silent())


@pytest.mark.parametrize(
    "alter",
    [
        lambda inputs: inputs["prompts"][0].update(text="the red fox"),
        lambda inputs: inputs["prompts"].pop(),
        lambda inputs: inputs.update(tokens_per_pass=7),
        lambda inputs: inputs["facts"].update(n_layers=3),
        lambda inputs: inputs.pop("facts"),
        lambda inputs: inputs.update(new=1),
    ],
)
def test_altered_inputs_are_refused(tmp_path: Path, job: Job, alter: Any) -> None:
    folder = running.folder_of(job, tmp_path)
    inputs = json.loads((folder.path / "inputs.json").read_text())
    alter(inputs)

    (folder.path / "inputs.json").write_text(json.dumps(inputs))
    with pytest.raises(LayerscopeError, match="edited since it began"):
        running.resume(folder.path, Silent(), model=job.model)

    (folder.path / "inputs.json").write_text(json.dumps(sealed(inputs)))  # as a deceiver would
    with pytest.raises(LayerscopeError, match="texts of this run have been altered"):
        running.resume(folder.path, Silent(), model=job.model)


# -- replay ---------------------------------------------------------------------------------------


def test_a_replay_is_bitwise_whatever_the_callers_threads(saved: Path, job: Job) -> None:
    folder = RunFolder(saved)
    before = (folder.path / "run.json").read_bytes()
    torch.set_num_threads(2)
    try:
        found = running.replay(folder.path, model=job.model)
    finally:
        torch.set_num_threads(1)

    assert (found.verdict, found.changed, found.largest, found.since) == ("bitwise", (), 0.0, ())
    assert (folder.path / "run.json").read_bytes() == before


def altered(folder: RunFolder, factor: float) -> None:
    result = folder.result()
    attributes = result.clean_probability.attrs
    result["clean_probability"] = result.clean_probability * factor
    result.clean_probability.attrs = attributes
    record = folder.record
    record.result = folder.save_result(result)
    record.machine = record.machine.model_copy(
        update={"code": "0" * 64, "versions": {**record.machine.versions, "numpy": "1.0"}}
    )
    folder.save_record(record)


@pytest.mark.parametrize(("factor", "verdict"), [(1.5, "changed"), (1 + 1e-7, "within tolerance")])
def test_a_changed_number_is_told_with_what_else_changed(
    saved: Path, factor: float, verdict: str, command: Command
) -> None:
    folder = RunFolder(saved)
    altered(folder, factor)

    found = command("replay", folder.path)

    assert found.code == (verdict == "changed")
    assert found.out.splitlines()[0].startswith(verdict)
    assert ("clean_probability: differs by up to 0.33" in found.out) == (verdict == "changed")
    assert "code: 000000000000 ->" in found.out
    assert f"versions numpy: 1.0 -> {np.__version__}" in found.out


def test_a_replay_needs_a_result(tmp_path: Path, job: Job) -> None:
    with pytest.raises(LayerscopeError, match="not complete"):
        running.replay(running.folder_of(job, tmp_path).path, model=job.model)


def test_variables_that_came_or_went_count_as_changed(complete_run: Path) -> None:
    result = RunFolder(complete_run).result()

    assert running.compared(result, result.drop_vars("own"), ()).verdict == "changed"
    assert running.compared(result.drop_vars("own"), result, ()).verdict == "changed"
    transposed = result.assign(recovery=result.recovery.transpose())
    assert running.compared(result, transposed, ()).verdict == "changed"


# -- a model object -------------------------------------------------------------------------------


def test_a_run_on_a_model_object_goes_on_from_python_only(
    tmp_path: Path, prompts_file: Path, command: Command
) -> None:
    model = zoo.layered("gpt2", seed=3)
    job = prepare(Request("causal_trace", model=model, prompts=str(prompts_file), settings=QUICK))
    with pytest.raises(KeyboardInterrupt):
        running.run(job, tmp_path, Counting(stop_after=3))
    (folder,) = runs_below(tmp_path)

    refused = command("resume", folder.path)
    result = layerscope.open_run(folder.path).resume(model=model, progress=Silent())

    assert refused.code == 2
    assert "given a model object" in refused.err
    assert "open_run" in refused.err
    assert result.sizes["prompt"] == 4
    assert layerscope.open_run(folder.path).replay(model=model).verdict == "bitwise"


def test_a_limit_keeps_the_first_of_each_category(tiny_model: Any, prompts_file: Path) -> None:
    job = prepare(Request("causal_trace", model=tiny_model, prompts=str(prompts_file), limit=1))

    assert [prompt.name for prompt in job.inputs.prompts] == ["fox", "town"]
