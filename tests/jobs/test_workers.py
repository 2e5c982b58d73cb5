"""Runs that worker processes carry out: the same bytes, whatever happens to a worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import layerscope
import zoo
from layerscope import experiments
from layerscope.engines.local import LocalEngine
from layerscope.errors import LayerscopeError
from layerscope.jobs import running
from layerscope.jobs.prepare import prepare
from layerscope.jobs.progress import PlainLines, Silent
from layerscope.jobs.request import Request
from layerscope.jobs.workers import engine_of, number_of, read_workers, threads_of_each
from layerscope.results.store import RunFolder, runs_below
from quick import QUICK, Command, gone


@pytest.fixture(autouse=True, scope="module")
def _verdicts_are_kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Workers find what the load check said here, as they do outside of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERSCOPE_VERDICTS", str(tmp_path_factory.mktemp("verdicts")))
        yield


@pytest.fixture(scope="module")
def trace_of_one(tmp_path_factory: pytest.TempPathFactory, tiny: Path, prompts_file: Path) -> RunFolder:
    """A trace that this process carried out alone."""
    job = prepare(Request("causal_trace", model=str(tiny), prompts=str(prompts_file), settings=QUICK))
    return running.run(job, tmp_path_factory.mktemp("one"), Silent())


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_bytes(
    tmp_path: Path, tiny: Path, prompts_file: Path, trace_of_one: RunFolder, workers: int
) -> None:
    job = prepare(Request("causal_trace", model=str(tiny), prompts=str(prompts_file), settings=QUICK))

    folder = running.run(job, tmp_path, Silent(), workers)

    assert folder.record.result == trace_of_one.record.result
    assert (folder.path / "result.nc").read_bytes() == (trace_of_one.path / "result.nc").read_bytes()
    assert {name: stage.items for name, stage in folder.record.stages.items()} == {
        name: stage.items for name, stage in trace_of_one.record.stages.items()
    }
    assert folder.record.seconds > 0
    assert not list(folder.path.rglob(".*.tmp"))


def test_workers_serve_python_and_replay(tiny: Path, prompts_file: Path, trace_of_one: RunFolder) -> None:
    asked: dict[str, Any] = {"prompts": str(prompts_file), "progress": False, **QUICK}

    shared = layerscope.run("causal_trace", str(tiny), workers=2, **asked)

    assert shared.drop_attrs().identical(trace_of_one.result().drop_attrs())
    assert running.replay(trace_of_one.path, workers=1).verdict == "bitwise"


def test_several_runs_share_one_queue(tmp_path: Path, tiny: Path, passages_file: Path) -> None:
    names = ["hidden_states", "first_token_attention"]

    def jobs() -> list[Any]:
        return [prepare(Request(name, model=str(tiny), passages=str(passages_file))) for name in names]

    lines: list[str] = []
    with engine_of(2) as engine:
        together = running.run_all(jobs(), tmp_path / "together", PlainLines(lines.append, every=0), engine)
    alone = [running.run(job, tmp_path / "alone", Silent()) for job in jobs()]

    assert [error for _, error in together] == [None, None]
    assert [folder.record.result for folder, _ in together] == [folder.record.result for folder in alone]
    assert lines[0] == "all experiments: 2 runs"
    assert lines[-1].startswith("all experiments: 2/2 runs")


def test_a_run_that_is_refused_leaves_the_others_alone(
    tmp_path: Path, tiny: Path, passages_file: Path, prompts_file: Path
) -> None:
    wrong = tmp_path / "wrong.jsonl"
    first = json.loads(prompts_file.read_text().splitlines()[0])
    wrong.write_text(json.dumps({**first, "answer": " zzz"}) + "\n")
    jobs = [
        prepare(Request("causal_trace", model=str(tiny), prompts=str(wrong), settings=QUICK)),
        prepare(Request("hidden_states", model=str(tiny), passages=str(passages_file))),
    ]

    with engine_of(1) as engine:
        (traced, error), (states, none) = running.run_all(jobs, tmp_path, Silent(), engine)

    assert error is not None
    assert "no prompt is left to trace" in str(error)
    assert traced.record.state == "refused"
    assert none is None
    assert states.record.state == "complete"


def test_a_run_that_another_process_writes_leaves_the_others_alone(
    tmp_path: Path, tiny: Path, passages_file: Path
) -> None:
    names = ["hidden_states", "first_token_attention"]
    jobs = [prepare(Request(name, str(tiny), passages=str(passages_file))) for name in names]
    folder = running.folder_of(jobs[0], tmp_path)

    with folder.writing():
        (_, locked), (second, none) = running.run_all(jobs, tmp_path, Silent(), LocalEngine())

    assert locked is not None
    assert "another process is writing this run" in str(locked)
    assert none is None
    assert second.record.state == "complete"


def test_a_model_object_is_refused_with_what_to_do(tmp_path: Path, passages_file: Path) -> None:
    model = zoo.layered("gpt2")

    with pytest.raises(LayerscopeError, match="save_pretrained"):
        layerscope.run("hidden_states", model, passages=str(passages_file), workers=2, progress=False)
    assert number_of("auto", model) == 0


def test_how_many_workers_and_threads() -> None:
    assert [read_workers(word) for word in ("auto", "0", "7")] == ["auto", 0, 7]
    for word in ("-1", "two", "", "1.5", "99999"):
        with pytest.raises(LayerscopeError, match="--workers"):
            read_workers(word)
    assert threads_of_each(0, None) is None
    assert threads_of_each("auto", None) == 1
    assert threads_of_each(10_000, None) == 1
    assert threads_of_each(2, 3) == 3


def test_the_command_refuses_what_is_no_number(command: Command, tmp_path: Path, tiny: Path) -> None:
    outcome = command("run", "hidden_states", "--model", tiny, "--out", tmp_path, "--workers", "many")

    assert outcome.code == 2
    assert "this is no number of worker processes" in outcome.err


# -- what happens to workers ----------------------------------------------------------------------


class Started:
    """The command line in a process group of its own, and its worker processes."""

    def __init__(self, *words: object) -> None:
        line = [sys.executable, "-m", "layerscope", *map(str, words)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            line,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def ended(self) -> tuple[int, str]:
        """Wait for its end: exit code, and what it told."""
        _, told = self.process.communicate(timeout=300)
        return self.process.returncode, told

    def workers(self) -> list[int]:
        """Processes that it started, and those that these started, but for helpers that have no name of ours."""
        found, ahead = [], [self.process.pid]
        while ahead:
            for task in Path(f"/proc/{ahead.pop()}/task").glob("*/children"):
                children = [int(word) for word in task.read_text().split()]
                found += children
                ahead += children
        return found

    def when(self, there: Any) -> None:
        """Wait until something is the case."""
        for _ in range(1200):
            if there():
                return
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        raise AssertionError("it never was")


def _asked(tiny: Path, prompts_file: Path, out: Path, settings: list[str]) -> list[object]:
    many = ["--set", "samples=40", "--workers", "2", "--threads", "1"]
    return ["run", "causal_trace", "--model", tiny, "--prompts", prompts_file, "--out", out, *settings, *many]


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["a worker dies", "ctrl-c"])
def test_a_death_or_ctrl_c_loses_nothing(
    tmp_path: Path, tiny: Path, prompts_file: Path, quick_settings: list[str], stop: str
) -> None:
    calm = Started(*_asked(tiny, prompts_file, tmp_path / "calm", quick_settings))
    assert calm.ended()[0] == 0
    (expected,) = runs_below(tmp_path / "calm")

    asked = _asked(tiny, prompts_file, tmp_path / "stopped", quick_settings)
    begun = Started(*asked)
    begun.when(lambda: list((tmp_path / "stopped").rglob("*.npz")))
    workers = begun.workers()
    if stop == "ctrl-c":
        os.killpg(begun.process.pid, signal.SIGINT)
        began = time.monotonic()
        code, told = begun.ended()
        assert code == 130, told
        assert "what was computed is kept" in told
        assert "Traceback" not in told
        assert time.monotonic() - began < 30  # seconds on an idle machine: benchmarks/workers.py
        assert all(gone(worker) for worker in workers)
        assert not list((tmp_path / "stopped").rglob(".*.tmp"))
        assert Started(*asked).ended()[0] == 0
    else:
        for worker in workers[-1:]:
            os.kill(worker, signal.SIGKILL)
        code, told = begun.ended()
        assert code == 0, told

    (found,) = runs_below(tmp_path / "stopped")
    assert (found.path / "result.nc").read_bytes() == (expected.path / "result.nc").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments.names())
def test_every_experiment_gives_the_same_bytes_for_any_number_of_workers(tmp_path: Path, name: str) -> None:
    found = {}
    for workers in (0, 1, 2, 5):
        job = prepare(Request(name, limit=2, longest=48))
        found[workers] = running.run(job, tmp_path / str(workers), Silent(), workers)

    digests = {workers: folder.record.result for workers, folder in found.items()}
    assert len(set(digests.values())) == 1, digests
