"""How far is a plan from the truth?

For each model, a plan and, apart from it, the whole run, each in a fresh process with the same number of
threads. Prints expected over measured, for seconds and for peak memory; a plan holds when both are within
0.7 and 1.3.

    python benchmarks/plan_accuracy.py MODEL [MODEL ...] --experiment causal_trace --set samples=4
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from typing import Any

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--experiment", default="causal_trace")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--prompts")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
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
