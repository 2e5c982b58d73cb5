"""On how many models that have learned nothing does the atlas describe a layer?

    layerscope report --quick --twins 20 --workers 2 --out RUNS
    python benchmarks/untrained_layers.py RUNS

Each untrained twin in RUNS is read as a model is, the others being its twins. Printed for each: the layers that stand
out, the heads with a role, whether there are phases. At the end the share of twins of which any layer is said to stand
out, with its Clopper-Pearson interval: the design asks for at most 5 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import xarray as xr
from scipy.stats import binomtest

from layerscope.atlas.layers import Layers, layers_of_parts
from layerscope.atlas.parts import part_of
from layerscope.maths.prediction import FEWEST
from layerscope.results.store import runs_below


def twins_in(folder: Path) -> dict[int, dict[str, xr.Dataset]]:
    """Complete results on twins, by seed and experiment."""
    found: dict[int, dict[str, xr.Dataset]] = {}
    for run in runs_below(folder):
        record = run.record
        if record.asked.untrained is not None and record.state == "complete":
            found.setdefault(record.asked.untrained, {})[record.asked.experiment] = run.result()
    return dict(sorted(found.items()))


def as_a_model(seed: int, twins: dict[int, dict[str, xr.Dataset]]) -> Layers:
    """The atlas of one twin beside the others."""
    parts = []
    for experiment, result in twins[seed].items():
        others = {
            other: results[experiment]
            for other, results in twins.items()
            if other != seed and experiment in results
        }
        parts.append(part_of(result, others if len(others) >= FEWEST else None))
    return layers_of_parts(f"twin {seed}", parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    twins = twins_in(parser.parse_args().runs)
    described = 0
    for seed in twins:
        found = as_a_model(seed, twins)
        out = [layer for layer in range(found.number) if found.findings(layer)]
        described += bool(out)
        print(
            f"twin {seed}: {len(twins[seed])} experiments; layers that stand out: {out or 'none'}; "
            f"{len(found.roles)} heads with a role. {found.phases.said()}",
            flush=True,
        )
        for layer in out:
            for claim in found.findings(layer):
                print(f"    {claim.text}")
    low, high = binomtest(described, len(twins)).proportion_ci(method="exact")
    print(
        f"{described} of {len(twins)} twins have a layer that is described (95% CI {low:.1%} to {high:.1%})"
    )


if __name__ == "__main__":
    main()
