"""A run that is killed (really: SIGKILL, another process) goes on to the same bytes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.conftest import assert_same_bits
from layerscope.results.store import RunFolder, runs_below

# Each child gets a few files further than the last, so that deaths fall into every stage, into the
# conclusion, and between files of one item; the timed ones fall anywhere.
_RNG = random.Random(0)
OFTEN = [_RNG.choice(["file:", "before:"]) + str(_RNG.randint(5, 8)) for _ in range(5)]
TIMED = [f"{_RNG.uniform(0.02, 0.2):.3f}" for _ in range(2)]
# All files of a run of state_mean, in order: inputs, record (planned), writer, record (running), 5 parts,
# record, 5 parts, record, result, record (complete).
BEFORE_COMPLETE = "file:17"


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory, tiny: Path, prompts_file: Path, passages_file: Path):
    """Where the runs lie, and what became of each process."""
    out = tmp_path_factory.mktemp("killed")
    jobs = [
        ["causal_trace", str(prompts_file), "trace-calm", []],
        ["causal_trace", str(prompts_file), "trace-killed", TIMED + OFTEN],
        ["state_mean", str(passages_file), "mean-calm", []],
        ["state_mean", str(passages_file), "mean-killed", OFTEN],
        ["state_mean", str(passages_file), "mean-late", [BEFORE_COMPLETE]],
    ]
    words = [sys.executable, str(Path(__file__).parent / "killing.py"), str(tiny), str(out)]
    done = subprocess.run(words, input=json.dumps(jobs), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, done.stdout.splitlines()


def only_run(out: Path) -> RunFolder:
    (run,) = runs_below(out)
    return run


@pytest.mark.parametrize("which", ["trace", "mean"])
def test_killed_again_and_again_it_gives_the_same_bytes(ends: tuple[Path, list[str]], which: str) -> None:
    out, lines = ends
    mine = [line for line in lines if line.startswith(f"{which}-killed")]
    calm, killed = only_run(out / f"{which}-calm"), only_run(out / f"{which}-killed")

    assert sum(line.endswith(" killed") for line in mine) >= 3
    assert mine[-1].endswith("calm ended 0")
    assert killed.record.state == "complete"
    assert_same_bits(calm.result(), killed.result())
    assert not list(killed.path.rglob(".*.tmp"))


def test_killed_between_the_result_and_the_record_it_is_concluded_again(ends: tuple[Path, list[str]]) -> None:
    out, lines = ends

    assert f"mean-late {BEFORE_COMPLETE} killed" in lines
    assert only_run(out / "mean-late").record.state == "complete"
    assert_same_bits(only_run(out / "mean-calm").result(), only_run(out / "mean-late").result())
