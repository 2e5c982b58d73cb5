"""Every experiment on one model, and on its untrained twins: what `report` runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerscope.cli.options import Question
from layerscope.cli.telling import going_on, keep_memory, told_of_a_twin
from layerscope.errors import LayerscopeError

if TYPE_CHECKING:
    from layerscope.engines.engine import Engine
    from layerscope.jobs.prepare import Job
    from layerscope.models.layered import LayeredModel
    from layerscope.results.store import RunFolder


def every_experiment(
    asked: Question,
    model: LayeredModel,
    engine: Engine,
    out: Path,
    quick: bool,
    refused: dict[str, LayerscopeError],
) -> list[RunFolder]:
    """Run them all on one model, then on its twins, one after another; what stops one is told and stops no other."""
    from layerscope.jobs.twins import twin_seeds
    from layerscope.models.untrained import kept_twin

    keep_memory()
    folders = _all_on(model, asked, engine, out, quick, refused)
    if not folders:
        raise next(iter(refused.values()))
    for seed in twin_seeds(asked.seed or 0, asked.n_twins):
        with going_on(f"untrained twin {seed}", refused):
            folders += _all_on(kept_twin(model, seed), asked, engine, out, quick, refused)
    return folders


def _all_on(
    model: LayeredModel,
    asked: Question,
    engine: Engine,
    out: Path,
    quick: bool,
    refused: dict[str, LayerscopeError],
) -> list[RunFolder]:
    from layerscope import experiments

    folders: list[RunFolder] = []
    ready: list[Job] = []
    for name in experiments.names():
        with going_on(name, refused), told_of_a_twin(model, name):
            ready.append(asked.for_experiment(name, quick=quick).job(name, loaded=model))
            if not engine.workers:  # which would share them: else each as it comes
                folders += _carried_out([ready.pop()], out, engine, refused)
    return folders + _carried_out(ready, out, engine, refused)


def _carried_out(
    jobs: Sequence[Job], out: Path, engine: Engine, refused: dict[str, LayerscopeError]
) -> list[RunFolder]:
    """The folders of the jobs that were not refused, which are carried out together."""
    from layerscope.jobs import running
    from layerscope.jobs.progress import for_this_terminal

    folders = []
    for job, (folder, error) in zip(
        jobs, running.run_all(jobs, out, for_this_terminal(), engine), strict=True
    ):
        name = job.experiment.name
        with going_on(name, refused), told_of_a_twin(job.model, name):
            if error is not None:
                raise error
            folders.append(folder)
    return folders
