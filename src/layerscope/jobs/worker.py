"""What a worker process does: it opens a run by its folder, as anybody could, and measures what it is told.

Nothing but names and numbers is sent. The model is loaded once for all runs on it, what earlier stages gave is
read from their parts, and what is measured is left there as a part.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import xarray as xr

from layerscope.contract import Stage, WorkItem
from layerscope.errors import LayerscopeError, LayerscopeWarning
from layerscope.jobs import prepare
from layerscope.jobs.measuring import Measured, combined, concluded, item_digest, measured, threads
from layerscope.jobs.prepare import Job
from layerscope.jobs.request import Request
from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.models.untrained import kept_twin
from layerscope.results.record import RunRecord
from layerscope.results.store import RunFolder, RunStore
from layerscope.results.trust import from_a_record, names_from_a_record

MODULES = ("torch", "transformers", "layerscope.jobs.worker")
"""What is worth importing before the first task."""

_RUNS_KEPT, _STAGES_KEPT = 40, 8


@dataclass(frozen=True)
class AtWork:
    """A run, as a worker is told of it.

    Attributes:
        folder: where it lies.
        model: the name that the model was loaded by here.
        trust_remote_code: what the person at the command allowed.
        from_a_record: whether names come from a record, which nothing is fetched for.
    """

    folder: str
    model: str
    trust_remote_code: bool
    from_a_record: bool

    @classmethod
    def of(cls, job: Job, store: RunStore) -> AtWork:
        """A run that is being carried out here."""
        assert isinstance(store, RunFolder)
        facts = job.model.facts
        source = prepare.absolute(facts.source)
        return cls(str(store.path.resolve()), source, facts.trust_remote_code, from_a_record())


def measured_item(at: AtWork, stage: str, index: int, item: str) -> Measured:
    """Measure one item and leave its part in the run's folder.

    Args:
        at: the run.
        stage: name of the stage.
        index: the item's place in it.
        item: digest of the item; what this worker finds at that place must be the same.
    """
    job, folder = _opened(at)
    with _names(at), threads(job.record.machine.threads):
        found, items, earlier = _stage(at, [each.name for each in job.experiment.stages].index(stage))
        if index >= len(items) or item_digest(items[index]) != item:
            raise LayerscopeError(
                "a worker finds other work in this run than was sent to it",
                found=f"{at.folder}: {stage}, item {index}",
                expected=f"item {item[:12]}",
                hint="--workers 0; and please report it: work must not depend on the process",
            )
        return measured(job, folder, found, index, items[index], earlier)


def concluded_run(at: AtWork) -> str:
    """Conclude a run whose stages are all measured; returns the digest of its result."""
    job, folder = _opened(at)
    with _names(at), threads(job.record.machine.threads):
        return concluded(job, folder, job.record, _before(at, len(job.experiment.stages)))


def _names(at: AtWork) -> AbstractContextManager[None]:
    return names_from_a_record() if at.from_a_record else nullcontext()


@lru_cache(maxsize=_RUNS_KEPT)
def _opened(at: AtWork) -> tuple[Job, RunFolder]:
    folder = RunFolder.open(Path(at.folder))
    with _names(at):
        job = prepare.again(folder, model=_model(at, folder.record))
    return job, folder


def _model(at: AtWork, record: RunRecord) -> LayeredModel:
    asked, request = record.asked, Request.recorded(record, model=at.model)
    loaded = _loaded(
        request.model, asked.device, asked.dtype, request.revision, at.trust_remote_code, asked.files
    )
    return loaded if asked.untrained is None else _twin(loaded, asked.untrained)


@lru_cache(maxsize=1)
def _twin(model: LayeredModel, seed: int) -> LayeredModel:
    _opened.cache_clear()  # runs on another twin would keep its weights; they come twin after twin
    return kept_twin(model, seed)


@lru_cache(maxsize=1)
def _loaded(
    source: str, device: str, dtype: str, revision: str | None, trust: bool, files: str
) -> LayeredModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)  # whoever gave the work has said it
        return load_model(
            source,
            device=device,
            dtype=dtype,
            revision=revision,
            trust_remote_code=trust,
            files=files or None,
        )


@lru_cache(maxsize=_STAGES_KEPT)
def _stage(at: AtWork, place: int) -> tuple[Stage, list[WorkItem], dict[str, xr.Dataset]]:
    """A stage, its items, and what the stages before gave."""
    job, _ = _opened(at)
    stage, earlier = job.experiment.stages[place], _before(at, place)
    return stage, list(stage.items(job.inputs, job.settings, earlier)), earlier


def _before(at: AtWork, place: int) -> dict[str, xr.Dataset]:
    if place == 0:
        return {}
    (_, folder), (stage, items, earlier) = _opened(at), _stage(at, place - 1)
    return {**earlier, stage.name: combined(folder, stage, items)}
