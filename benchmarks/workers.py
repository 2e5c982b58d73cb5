"""Is a run as fast as its workers are many, and what do they hold?

    python benchmarks/workers.py [MODEL] [EXPERIMENT] [LIMIT]

Runs one experiment with 0, 1, 2 and 4 worker processes of one thread, and for comparison in one process with all
cores. Prints seconds, the ratio to one worker, and the largest sum of memory that belongs to the processes
(proportional set size: what they share is counted once). Results must be the same bytes for all of one thread.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from layerscope.jobs import running
from layerscope.jobs.prepare import prepare
from layerscope.jobs.progress import Silent
from layerscope.jobs.request import Request
from layerscope.runs.machine import usable_cores


def main(model: str, experiment: str, limit: int) -> None:
    """Time each way once, in one process after another."""
    digests = set()
    baseline = None
    print(f"{experiment} on {Path(model).name}, {limit} texts of each category, {usable_cores()} cores")
    for workers, threads in ((0, 1), (1, 1), (2, 1), (4, 1), (0, usable_cores())):
        torch.set_num_threads(threads)
        job = prepare(Request(experiment, model=model, limit=limit))
        with tempfile.TemporaryDirectory() as out, Watched() as memory:
            started = time.monotonic()
            folder = running.run(job, Path(out), Silent(), workers)
            seconds = time.monotonic() - started
            if threads == 1:
                digests.add(folder.record.result)
        baseline = seconds if workers == 1 else baseline
        ratio = f"{baseline / seconds:.2f} times one worker" if baseline else ""
        print(
            f"workers {workers}, threads {threads}: {seconds:6.1f} s  {memory.most / 1e6:6.0f} MB  {ratio}",
            flush=True,
        )
    print("same bytes" if len(digests) == 1 else f"DIFFERENT BYTES: {digests}")


class Watched:
    """The largest memory of this process and all that it started, while the context lasts."""

    def __enter__(self) -> Watched:
        self.most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.most = max(self.most, sum(map(_bytes, _family(os.getpid()))))


def _family(process: int) -> list[int]:
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in _text(task).split():
            found += _family(int(child))
    return found


def _bytes(process: int) -> int:
    lines = _text(Path(f"/proc/{process}/smaps_rollup")).splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended
        return ""


if __name__ == "__main__":
    model, experiment, limit, *_ = [*sys.argv[1:], *("bundled", "causal_trace", "20")[len(sys.argv) - 1 :]]
    main(model, experiment, int(limit))
