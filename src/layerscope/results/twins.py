"""The untrained twins of a run: run folders beside it that were asked the same, or those that ship with the package.

A twin's run is named by what was asked, as any run is, so it is found and used again by whoever asks the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.record import RunRecord
from layerscope.results.shipped_twins import shipped_twins
from layerscope.results.store import RunFolder

_SHAPE = ("n_layers", "width", "vocabulary")


def twins_of(run: RunFolder, among: Iterable[RunFolder] = ()) -> dict[int, xr.Dataset]:
    """What an experiment found on the untrained twins of a model, asked what `run` was asked.

    Args:
        run: of the model; of a twin, the others are its twins.
        among: runs to look at besides those that lie in the same folder.

    Returns:
        Results by seed of the weights. Where no run of a twin is complete, those that ship with the package, if the
        model, the settings and the texts are theirs: such a result holds what claims and `over_depth` need, and no
        more. Empty where there are none.
    """
    found: dict[int, xr.Dataset] = {}
    for seed, twin in twin_runs_of(run, among).items():
        if twin.record.state == "complete":
            with suppress(LayerscopeError):  # a damaged one is no witness
                found[seed] = twin.result()
    return found or shipped_twins(run.record)


def twin_runs_of(run: RunFolder, among: Iterable[RunFolder] = ()) -> dict[int, RunFolder]:
    """Run folders of the untrained twins of a run, in whatever state, by seed of the weights; as `twins_of`."""
    own = run.record
    found: dict[int, RunFolder] = {}
    for twin in (*_beside(run, own.asked.experiment), *among):
        with suppress(LayerscopeError, OSError):
            record = twin.record
            seed = record.asked.untrained
            if seed is not None and seed != own.asked.untrained and _asked_alike(own, record):
                found.setdefault(seed, twin)
    return dict(sorted(found.items()))


def _beside(run: RunFolder, experiment: str) -> Iterator[RunFolder]:
    """Other runs of this experiment on a twin, by a glance at their records: a folder may hold hundreds."""
    for path in sorted(run.path.resolve().parent.glob("*/run.json")):
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            asked = json.loads(path.read_text(encoding="utf-8"))["asked"]
            if asked["experiment"] == experiment and asked["untrained"] is not None:
                yield RunFolder(Path(path.parent))


def _asked_alike(one: RunRecord, other: RunRecord) -> bool:
    """Whether two runs were asked the same but for the weights, and answered by the same code and architecture."""
    shapes = ([record.facts.get(name) for name in _SHAPE] for record in (one, other))
    return (
        one.asked.but_for_training() == other.asked.but_for_training()
        and one.machine.answering() == other.machine.answering()
        and next(shapes) == next(shapes)
    )
