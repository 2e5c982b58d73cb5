"""What does a model get told that has learned nothing?

Every experiment is run on untrained twins of a model, one for each seed, and, for comparison, on the model
itself. Printed for each: claims that say "significant" of those that compare something, and cells below
.05 of every variable of p values (these are corrected within their family, so of the nulls that hold in a
twin at most one family in twenty should have any). An effect that an untrained model really has, such as a
restored state bringing the output back, is rightly told; which ones these are is what this table is for.

    python benchmarks/untrained_verdicts.py --model bundled --seeds 5 --limit 10 [--only layer_ablation ...]
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from layerscope import experiments
from layerscope.cli.options import Question
from layerscope.contract import Claim
from layerscope.errors import LayerscopeError
from layerscope.jobs import running
from layerscope.jobs.progress import Silent
from layerscope.models.layered import LayeredModel
from layerscope.models.untrained import kept_twin

_P_VALUES = re.compile(r"(^|_)p(_adjusted)?(_|$)")


def concluded(name: str, asked: Question, model: LayeredModel, out: Path) -> tuple[xr.Dataset, list[Claim]]:
    """The result of an experiment on a model, and what it claims; prompts that it gets wrong count too."""
    heard = asked.for_experiment(name)
    if "wrong" in experiments.load(name).settings.model_fields:
        heard = replace(heard, settings=["wrong=true"])
    job = heard.job(name, loaded=model)
    result = running.run(job, out, Silent()).result()
    return result, job.experiment.claims(result)


def counted(result: xr.Dataset) -> dict[str, tuple[int, int]]:
    """(cells below .05, cells) of each variable of p values."""
    found = {}
    for variable in result.data_vars:
        values = result[variable].values
        if _P_VALUES.search(str(variable)) and values.dtype.kind == "f":
            told = values[np.isfinite(values)]
            found[str(variable)] = (int((told < 0.05).sum()), told.size)
    return found


def told(name: str, asked: Question, model: LayeredModel, seeds: int) -> None:
    """Print the table of one experiment."""
    cells: dict[str, list[tuple[int, int]]] = defaultdict(list)
    claims: dict[str, list[tuple[int, int]]] = defaultdict(list)
    sentences: dict[str, int] = defaultdict(int)
    for seed in [None, *range(1, seeds + 1)]:
        whose = "model" if seed is None else "twins"
        one = model if seed is None else kept_twin(model, seed)
        with tempfile.TemporaryDirectory() as out:
            try:
                result, said = concluded(name, asked, one, Path(out))
            except LayerscopeError as error:
                print(f"  {whose} {seed}: {error.problem}")
                continue
        compared = [claim for claim in said if claim.significant is not None]
        positive = [claim for claim in compared if claim.significant]
        claims[whose].append((len(positive), len(compared)))
        for variable, (few, every) in counted(result).items():
            cells[f"{whose} {variable}"].append((few, every))
        if whose == "twins":
            for claim in positive:
                sentences[re.sub(r"[-−+]?\d[\d.,]*", "#", claim.text)] += 1
    for whose, counts in claims.items():
        print(f"  claims, {whose}: {sum(few for few, _ in counts)} of {sum(every for _, every in counts)}")
    for variable, counts in cells.items():
        any_below = sum(few > 0 for few, _ in counts)
        below, every = sum(few for few, _ in counts), sum(every for _, every in counts)
        print(f"  {variable}: {below} of {every} cells below .05, in {any_below} of {len(counts)} runs")
    for text, number in sorted(sentences.items(), key=lambda pair: -pair[1]):
        print(f"    {number} x {text}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    asked = Question(model=given.model, limit=given.limit, longest=128)
    model = asked.loaded()
    for name in given.only or experiments.names():
        print(name, flush=True)
        told(name, asked, model, given.seeds)


if __name__ == "__main__":
    main()
