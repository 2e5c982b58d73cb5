"""How far is a plan from the truth?

For each model, a plan and, apart from it, the whole run, each in a fresh process with the same number of
threads. Prints expected over measured, for seconds and for peak memory; a plan holds when both are within
0.7 and 1.3.

    python benchmarks/plan_accuracy.py MODEL [MODEL ...] --experiment causal_trace --set samples=4

Of runs that are done nothing is computed again: an item took the time between its part and the one before, and a
plan is made from those that it would have measured. Only of runs by one process (--workers 0).

    python benchmarks/plan_accuracy.py --of runs/causal_trace-gpt2-0123456789ab runs/...
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import xarray as xr

from layerscope import experiments
from layerscope.contract import Inputs, Stage
from layerscope.jobs.forecast import deciding, next_to_measure, seconds_of_all
from layerscope.jobs.planning import DECIDING_SECONDS, STAGE_SECONDS
from layerscope.results.combine import concatenate

ONE_SIDE = """
import json, sys
from pathlib import Path
import torch
asked = json.loads(sys.argv[1])
torch.set_num_threads(asked["threads"])
from layerscope.jobs import planning, running
from layerscope.jobs.prepare import prepare
from layerscope.jobs.request import Request
from layerscope.jobs.progress import Silent
job = prepare(Request(asked["experiment"], model=asked["model"], settings=asked["settings"], limit=asked["limit"],
              prompts=asked["prompts"]))
if asked["side"] == "plan":
    plan = planning.plan(job, Path(asked["out"]))
    print(json.dumps({"seconds": plan.seconds, "peak": plan.peak_bytes, "measured": [s.measured for s in plan.stages],
                      "items": [s.items for s in plan.stages]}))
else:
    record = running.run(job, Path(asked["out"]), Silent()).record
    print(json.dumps({"seconds": record.seconds, "peak": record.peak_bytes}))
"""


def one_side(side: str, asked: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as out:
        question = json.dumps(asked | {"side": side, "out": out})
        done = subprocess.run(
            [sys.executable, "-c", ONE_SIDE, question], capture_output=True, text=True, check=True
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def of_runs(paths: list[str]) -> None:
    """Expected over measured seconds of every stage of runs that are done, and how much a plan would have measured."""
    from layerscope.results.store import RunFolder

    print(f"{'':42} items planned from   expected  measured  ratio")
    for path in map(Path, paths):
        folder = RunFolder.open(path)
        record = folder.record
        experiment = experiments.load(record.asked.experiment)
        settings = experiments.settings_of(experiment, record.asked.settings)
        inputs, earlier = Inputs.model_validate(folder.inputs), {}
        decide = deciding(experiment, inputs, settings)
        for stage in experiment.stages:
            items = list(stage.items(inputs, settings, earlier))
            there = len(folder.done(stage.name))
            if there != len(items):
                break  # of a run that was interrupted, as far as it came
            if items:
                sizes = [item.size for item in items]
                took = seconds_of_items(folder, stage.name, record.stages[stage.name].seconds)
                used = planned_from(sizes, took, DECIDING_SECONDS if stage.name in decide else STAGE_SECONDS)
                expected = seconds_of_all(sizes, [(sizes[place], took[place]) for place in used])
                spent = sum(took[place] for place in used)
                said = f"{len(items):5d} {len(used):4d} in {spent:5.1f} s  {expected:8.1f}  {sum(took):8.1f}"
                whose = f"{inputs.facts.name[:10]:10} {experiment.name:20} {stage.name:10}"
                print(f"{whose} {said}  {expected / sum(took):5.2f}")
            earlier[stage.name] = result_of(folder, stage, len(items))


def result_of(folder: Any, stage: Stage, items: int) -> xr.Dataset:
    """The result of a stage from its parts, whatever version of Layerscope asked for them."""
    parts = [folder.part(stage.name, index) for index in range(items)]
    if stage.combine and parts:
        return reduce(stage.combine, parts)
    return concatenate(parts, along=stage.along) if parts else xr.Dataset()


def seconds_of_items(folder: Any, stage: str, total: float) -> list[float]:
    """Seconds of each item of a stage that one process measured, in their order."""
    written = [folder.part_path(stage, index).stat().st_mtime for index in sorted(folder.done(stage))]
    between = [after - before for before, after in pairwise(written)]
    return [max(total - sum(between), 1e-3), *(max(each, 1e-3) for each in between)]


def planned_from(sizes: list[float], took: list[float], limit: float) -> list[int]:
    """Items that a plan would have measured."""
    times: dict[int, float] = {}
    while (place := next_to_measure(sizes, times, limit)) is not None:
        times[place] = took[place]
    return list(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*")
    parser.add_argument("--of", nargs="+", default=[], help="run folders")
    parser.add_argument("--experiment", default="causal_trace")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--prompts")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    of_runs(given.of)
    settings = {
        name: json.loads(value) for name, _, value in (pair.partition("=") for pair in given.settings)
    }
    for model in given.models:
        asked = {"experiment": given.experiment, "model": model, "settings": settings}
        asked |= {"limit": given.limit, "threads": given.threads, "prompts": given.prompts}
        plan, run = one_side("plan", asked), one_side("run", asked)
        print(
            f"{model}, {given.experiment}, {given.threads} threads: ran {plan['measured']} of {plan['items']} items"
        )
        for name, unit in (("seconds", 1.0), ("peak", 1e6)):
            expected, measured = plan[name] / unit, run[name] / unit
            shown = f"{expected:8.1f} expected  {measured:8.1f} measured"
            print(f"  {'MB at peak' if name == 'peak' else name:10} {shown}  ratio {expected / measured:.2f}")


if __name__ == "__main__":
    main()
