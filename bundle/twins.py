"""Make what ships of untrained twins: quantities of their runs, without which no claim and no curve could be had.

    layerscope report --twins 5 --out RUNS          about six times a default report
    python bundle/twins.py RUNS                     writes src/layerscope/bundled/twins/

Of each run on the bundled model in RUNS and of its twins beside it, a file is written that is found again by weights,
tokenizer, settings and texts (results/shipped_twins.py). A result is reduced to the variables that its claims and its
measures over depth need: one after another is left out, and stays out where nothing changes by it.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from layerscope import experiments
from layerscope.bundled import bundled_folder
from layerscope.contract import Experiment
from layerscope.maths.prediction import FEWEST
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


def reduced(experiment: Experiment, results: Mapping[int, xr.Dataset]) -> Iterator[tuple[int, xr.Dataset]]:
    """The same results without what claims and curves do not need; what one needs is tried on the next first."""
    needed: set[str] | None = None
    for seed, result in results.items():
        whole = said(experiment, result)
        kept = result if needed is None else without(result, set(map(str, result.variables)) - needed)
        if needed is None or not unchanged(experiment, kept, whole):
            kept = least(experiment, result, whole)
            needed = set(map(str, kept.variables))
        kept = kept.copy()
        kept.attrs = plain({name: value for name, value in result.attrs.items() if name not in NOT_KEPT})
        for variable in kept.variables.values():
            variable.attrs = plain(variable.attrs)
        assert unchanged(experiment, kept, whole)
        yield seed, kept


def least(experiment: Experiment, result: xr.Dataset, whole: list[Any]) -> xr.Dataset:
    """What is left when whatever changes nothing is left out."""
    kept = result
    for names in halves(list(map(str, result.variables))):
        fewer = without(kept, set(names))
        if len(fewer.variables) < len(kept.variables) and unchanged(experiment, fewer, whole):
            kept = fewer
    return kept


def without(result: xr.Dataset, names: Collection[str]) -> xr.Dataset:
    return result.drop_vars([name for name in names if name in result.variables])


def plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as JSON has them: netCDF gives numpy's numbers."""
    return {name: getattr(value, "tolist", lambda value=value: value)() for name, value in attributes.items()}


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
        if len(results) < FEWEST:  # such as one that guesses an answer
            print(f"{asked.experiment}: {len(results)} twins with a result, none shipped")
            continue
        path = shipped_path(run.record, given.out)
        write_twins(path, dict(reduced(experiment, results)))
        print(f"{path.name}: seeds {', '.join(map(str, results))}, {path.stat().st_size:,} bytes", flush=True)
    print(f"{sum(path.stat().st_size for path in given.out.glob('*.xz')):,} bytes in all")


if __name__ == "__main__":
    main()
