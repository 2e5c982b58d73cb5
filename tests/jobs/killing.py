"""A program that runs an experiment in child processes which die by SIGKILL, again and again.

    python killing.py MODEL OUT < JSON list of [EXPERIMENT, TEXTS, FOLDER, [HOW, ...]]

HOW is "file:N" (the child dies right after its N-th file got its name; "before:N": right before), or a
number of seconds after which the parent kills it. Each child goes on in OUT/FOLDER, where the last one
died; one more runs to the end. Prints what became of each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "causal_trace": {"samples": 2, "resamples": 20, "smallest_range": 1e-6, "noise": 1.0},
    "state_mean": {},
}


def main(model: str, out: str) -> None:
    import torch

    from layerscope import experiments
    from layerscope.models.load import load_model

    torch.set_num_threads(1)
    experiments.__path__.append(str(Path(__file__).parent / "experiments"))
    loaded = load_model(model)
    for experiment, texts, folder, ways in json.load(sys.stdin):
        for how in [*ways, "calm"]:
            end = _child(experiment, loaded, texts, Path(out) / folder, how)
            print(folder, how, end, flush=True)


def _child(experiment: str, model: Any, texts: str, out: Path, how: str) -> str:
    child = os.fork()
    if child == 0:
        _run(experiment, model, texts, out, how)
        os._exit(0)
    if how.replace(".", "", 1).isdigit():
        time.sleep(float(how))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return "killed" if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}"


def _run(experiment: str, model: Any, texts: str, out: Path, how: str) -> None:
    from layerscope import experiments
    from layerscope.jobs import running
    from layerscope.jobs.prepare import prepare
    from layerscope.jobs.progress import Silent
    from layerscope.jobs.request import Request

    kind, _, count = how.partition(":")
    if count:
        os.replace = _dying(os.replace, int(count), before=kind == "before")
    given: dict[str, Any] = dict.fromkeys(experiments.load(experiment).takes, texts)
    job = prepare(Request(experiment, model=model, settings=SETTINGS[experiment], **given))
    running.run(job, out, Silent())


def _dying(replace: Callable[..., None], at: int, *, before: bool) -> Callable[..., None]:
    """os.replace, whose `at`-th call is the last thing that the process does."""
    calls = 0

    def call(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if before and calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return call


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
