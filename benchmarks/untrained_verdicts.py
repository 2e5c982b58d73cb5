"""What does a model get told that has learned nothing?

    layerscope report --twins 6 --out RUNS
    python benchmarks/untrained_verdicts.py RUNS...

Each untrained twin in RUNS is judged as a model is: by each experiment's own null, and, where a claim is declared an
`effect` (untrained models show it too), against the other twins, of which there must be five. Printed for each
experiment, of the claims that could be decided: how many verdicts twins get where the claim is declared `null`, with
the Clopper-Pearson interval of their share; how many where it is declared an effect, by its own null alone and
against the other twins; the same of the model, beside its twins; the sentences; and p values below .05 by variable
(corrected within their family). At the end all experiments together: the design asks for at most 5 % of verdicts.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.stats import binomtest

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.evidence.twins import beside_twins
from layerscope.results.store import RunFolder, runs_below
from layerscope.results.twins import twin_runs_of

Claims = list[Claim]
_NUMBER = re.compile(r"[-−+]?\d[\d.,]*")
_P_VALUES = re.compile(r"(^|_)p(_adjusted)?(_|$)")


@dataclass
class Told:
    """What one experiment claims.

    Attributes:
        of_model: of the model, by its own nulls alone.
        model: the same, judged beside its twins.
        alone: of each twin, by its own nulls alone.
        judged: of each twin, beside the others.
        cells: (p below .05, p values) of all twins, by variable.
    """

    of_model: Claims
    model: Claims
    alone: list[Claims]
    judged: list[Claims]
    cells: dict[str, tuple[int, int]] = field(default_factory=dict)


def told(run: RunFolder) -> Told:
    """What is claimed of the model of a run, and of the twins beside it."""
    experiment = experiments.load(run.record.asked.experiment)
    results = [twin.result() for twin in twin_runs_of(run).values() if twin.record.state == "complete"]
    alone = [experiment.claims(result) for result in results]
    judged = [beside_twins(own, [*alone[:place], *alone[place + 1 :]]) for place, own in enumerate(alone)]
    of_model = experiment.claims(run.result())
    return Told(of_model, beside_twins(of_model, alone), alone, judged, _cells(results))


def _cells(results: Sequence[xr.Dataset]) -> dict[str, tuple[int, int]]:
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for result in results:
        for name, variable in result.data_vars.items():
            if _P_VALUES.search(str(name)) and "least" not in str(name) and variable.dtype.kind == "f":
                found[str(name)].append(variable.values[np.isfinite(variable.values)])
    every = {name: np.concatenate([each.ravel() for each in values]) for name, values in found.items()}
    return {name: (int((p < 0.05).sum()), p.size) for name, p in every.items()}


def decidable(claims: Sequence[Claim], declared: str) -> Iterator[Claim]:
    """Claims that compare something, are so declared, and could have come out either way."""
    for claim in claims:
        said = claim.untrained[0] if claim.untrained else ""
        undecided = claim.significant is None or re.match("Too few|No estimate", claim.text)
        if said == declared and not undecided:
            yield claim


def counted(claims: Sequence[Claims], declared: str) -> tuple[int, int]:
    """(significant, decidable) of so declared claims."""
    found = [claim for each in claims for claim in decidable(each, declared)]
    return sum(bool(claim.significant) for claim in found), len(found)


def share(claims: Sequence[Claims], declared: str) -> str:
    """Such as "3 of 60, 5.0% (95% CI 1.0 to 13.9)"."""
    significant, of = counted(claims, declared)
    if not of:
        return "none could be decided"
    low, high = binomtest(significant, of).proportion_ci(method="exact")
    return f"{significant} of {of}, {significant / of:.1%} (95% CI {100 * low:.1f} to {100 * high:.1f})"


def sentences(claims: Sequence[Claims]) -> Iterator[str]:
    """What is said significantly, numbers left out, the most frequent first."""
    said = Counter(
        f"[{claim.untrained[0] if claim.untrained else '?'}] {_NUMBER.sub('#', claim.text)}"
        for each in claims
        for claim in each
        if claim.significant
    )
    for text, number in said.most_common():
        yield f"    {number} x {text}"


def tell(one: Told) -> None:
    """Print what one experiment claims."""
    for declared in ("null", "effect"):
        print(f"  declared {declared}: model {share([one.model], declared)}")
        print(f"  declared {declared}: twins {share(one.judged, declared)}")
    print(f"  effects by their own null alone: model {share([one.of_model], 'effect')}")
    print(f"  effects by their own null alone: twins {share(one.alone, 'effect')}")
    for whose, claims in (("twins", one.judged), ("the model", [one.model])):
        print(f"  verdicts of {whose}:")
        print("\n".join(sentences(claims)) or "    none")
    for name, (below, every) in one.cells.items():
        print(f"  twins' {name}: {below} of {every} below .05")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    every: list[Told] = []
    for run in (found for folder in parser.parse_args().runs for found in runs_below(folder)):
        if run.record.asked.untrained is None and run.record.state == "complete":
            found = told(run)
            wrong = " (wrong answers count)" * bool(run.record.asked.settings.get("wrong"))
            print(f"{run.record.asked.experiment}{wrong}, {len(found.alone)} twins", flush=True)
            tell(found)
            every.append(found)
    print("all together")
    for declared in ("null", "effect"):
        print(f"  declared {declared}: model {share([one.model for one in every], declared)}")
        print(
            f"  declared {declared}: twins {share([each for one in every for each in one.judged], declared)}"
        )
    print(f"  effects by their own null alone: model {share([one.of_model for one in every], 'effect')}")
    alone = [each for one in every for each in one.alone]
    print(f"  effects by their own null alone: twins {share(alone, 'effect')}")


if __name__ == "__main__":
    main()
