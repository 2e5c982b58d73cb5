"""Make what ships of untrained twins: quantities of their runs, without which no claim and no curve could be had.

    layerscope report --twins 5 --out RUNS          about six times a default report
    python bundle/twins.py RUNS                     writes src/layerscope/bundled/twins/

Of each run on the bundled model in RUNS and of its twins beside it, a file is written that is found again by weights,
tokenizer, settings and texts (results/shipped_twins.py). A result is reduced to the variables that its claims and its
measures over depth need: one after another is left out, and stays out where nothing changes by it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xarray as xr

from layerscope import experiments
from layerscope.bundled import bundled_folder
from layerscope.contract import Experiment
from layerscope.results.shipped_twins import shipped_path, write_twins
from layerscope.results.store import runs_below
from layerscope.results.twins import twin_runs_of

COLUMNS = ("value", "low", "high", "null")
NOT_KEPT = ("machine", "cautions")


def said(experiment: Experiment, result: xr.Dataset) -> list[Any]:
    """What must stay as it is: numbers of claims and curves over depth, without their resamples."""
    claims = [
        (claim.about, repr(claim.value), claim.significant, claim.untrained)
        for claim in experiment.claims(result)
    ]
    curves = {
        name: {column: one[column].values.tobytes() for column in COLUMNS if column in one}
        for name, one in experiment.over_depth(result).items()
    }
    return [claims, curves]


def reduced(experiment: Experiment, result: xr.Dataset) -> xr.Dataset:
    """The same result without what claims and curves do not need."""
    whole, kept = said(experiment, result), result
    for names in halves(list(map(str, result.variables))):
        fewer = kept.drop_vars([name for name in names if name in kept.variables])
        if len(fewer.variables) < len(kept.variables) and unchanged(experiment, fewer, whole):
            kept = fewer
    attributes = {name: value for name, value in result.attrs.items() if name not in NOT_KEPT}
    kept = kept.drop_attrs(deep=False).assign_attrs(attributes)
    assert said(experiment, kept) == whole
    return kept


def halves(names: list[str]) -> Iterator[list[str]]:
    """All of them, then halves, quarters, ... down to single ones: most can go, and many go together."""
    size = len(names)
    while size:
        for start in range(0, len(names), size):
            yield names[start : start + size]
        size = (size + 1) // 2 if size > 1 else 0


def unchanged(experiment: Experiment, result: xr.Dataset, whole: list[Any]) -> bool:
    try:
        return said(experiment, result) == whole
    except Exception:  # whatever a claim raises that lacks a variable
        return False


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=bundled_folder("twins"))
    given = parser.parse_args()
    for path in given.out.glob("*.xz"):
        path.unlink()
    for run in (found for folder in given.runs for found in runs_below(folder)):
        asked = run.record.asked
        if asked.model != "bundled" or asked.untrained is not None:
            continue
        experiment = experiments.load(asked.experiment)
        results = {
            seed: twin.result() for seed, twin in twin_runs_of(run).items() if twin.record.state == "complete"
        }
        if not results:
            print(f"{asked.experiment}: no twin has a result")
            continue
        path = shipped_path(run.record, given.out)
        write_twins(path, {seed: reduced(experiment, result) for seed, result in results.items()})
        print(f"{path.name}: seeds {', '.join(map(str, results))}, {path.stat().st_size:,} bytes", flush=True)
    print(f"{sum(path.stat().st_size for path in given.out.glob('*.xz')):,} bytes in all")


if __name__ == "__main__":
    main()
