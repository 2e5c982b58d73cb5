"""Where does a report's time go, and how much of it reads texts that another experiment has read?

    python benchmarks/report.py [MODEL] [--quick]

Runs every experiment in this process, on one thread, and writes the page. Of every experiment it prints process
seconds of measuring, concluding, and of its section of the page (claims and figures); of the whole forward passes
in it, their seconds, and the seconds of those over texts that an earlier experiment gave to the same model
(watched, edited or plain alike: so an upper bound on what sharing could save). Other processes do not count, but
slow this one's caches down.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from layerscope import cli
from layerscope.jobs import course
from layerscope.models.layered import LayeredModel
from layerscope.report import sections, write
from layerscope.runs import state_cache

PHASES = ("measuring", "concluding", "section", "passes", "repeated")


class Times:
    """Process seconds of each experiment, by phase."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.experiment = ""
        self.read: dict[tuple[int, tuple[int, ...]], str] = {}
        self.hits = self.misses = 0

    def timed(self, call: Callable[..., Any], phase: str, name: Callable[..., str]) -> Callable[..., Any]:
        """The same call, with its seconds noted."""

        def timed(*given: Any, **more: Any) -> Any:
            self.experiment = name(*given)
            started = time.process_time()
            try:
                return call(*given, **more)
            finally:
                self.of[self.experiment][phase] += time.process_time() - started
                self.experiment = ""

        return timed

    def passes(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same forward pass, with its seconds, and with those of rows that another experiment has read."""

        def passes(model: LayeredModel, ids: torch.Tensor, **more: Any) -> Any:
            started = time.process_time()
            found = call(model, ids, **more)
            seconds = time.process_time() - started
            if self.experiment:
                rows = [(id(model), tuple(row)) for row in ids.tolist()]
                again = [row for row in rows if self.read.setdefault(row, self.experiment) != self.experiment]
                self.of[self.experiment]["passes"] += seconds
                self.of[self.experiment]["repeated"] += seconds * len(again) / len(rows)
            return found

        return passes

    def kept(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same reading from the cache of states, counted."""

        def kept(entry: Any, depth: int) -> Any:
            found = call(entry, depth)
            self.hits, self.misses = self.hits + (found is not None), self.misses + (found is None)
            return found

        return kept


def main(*asked: str) -> None:
    """Run a report, and print the table."""
    torch.set_num_threads(1)
    times, model = Times(), [word for word in asked if not word.startswith("-")]
    of_job = "measuring", "concluding"
    for name, phase in zip(("measured", "concluded"), of_job, strict=True):
        setattr(course, name, times.timed(getattr(course, name), phase, lambda job, *_: job.experiment.name))
    drawn = times.timed(sections.section, "section", lambda run, *_: run.record.asked.experiment)
    setattr(write, "section", drawn)  # noqa: B010
    LayeredModel.logits = times.passes(LayeredModel.logits)  # type: ignore[method-assign]
    state_cache._Entry.read = times.kept(state_cache._Entry.read)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as out, suppress(SystemExit):
        chosen = ["--model", *model] if model else []
        quick = ["--quick"] if "--quick" in asked else []
        sys.argv = ["layerscope", "report", *chosen, *quick, "--workers", "0", "--threads", "1", "--out", out]
        cli.main()
    print(f"\n{'':24}" + "".join(f"{phase:>12}" for phase in PHASES))
    for name, found in sorted(times.of.items(), key=lambda pair: -sum(pair[1].values())):
        print(f"{name:24}" + "".join(f"{found[phase]:12.1f}" for phase in PHASES))
    sums = {phase: sum(found[phase] for found in times.of.values()) for phase in PHASES}
    print(f"{'all':24}" + "".join(f"{sums[phase]:12.1f}" for phase in PHASES))
    rest = time.process_time() - sum(sums[phase] for phase in PHASES[:3])
    print(f"everything else (imports, loading, preparing, progress, the page): {rest:.1f}")
    print(f"cache of states: {times.hits} stretches found, {times.misses} not")


if __name__ == "__main__":
    main(*sys.argv[1:])
