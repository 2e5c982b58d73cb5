"""Run, resume and replay."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr

from layerscope.engines.engine import Engine
from layerscope.errors import LayerscopeError
from layerscope.jobs.carrying_out import carry_all_out, carry_out
from layerscope.jobs.measuring import differing, threads
from layerscope.jobs.prepare import Job, again, this_machine
from layerscope.jobs.progress import Progress, Silent
from layerscope.jobs.workers import Workers, engine_of, number_of
from layerscope.models.layered import LayeredModel
from layerscope.results.files import typed
from layerscope.results.memory import RunInMemory
from layerscope.results.store import RunFolder
from layerscope.results.trust import names_from_a_record

Verdict = Literal["bitwise", "within tolerance", "changed"]
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5


def run(job: Job, out: Path, progress: Progress, workers: Workers = 0) -> RunFolder:
    """Carry a job out in a folder below `out`, named by what was asked.

    Asking the same again goes on where the last attempt stopped, or returns at once when it is
    complete; a plan's parts are used too.
    """
    folder = folder_of(job, out)
    if not is_complete(folder):
        with engine_of(number_of(workers, job.model, folder.record.machine.threads)) as engine:
            carry_out(job, folder, progress, engine)
    return folder


def run_all(
    jobs: Sequence[Job], out: Path, progress: Progress, engine: Engine
) -> list[tuple[RunFolder, LayerscopeError | None]]:
    """Carry several jobs out together, as `run` would each; with why one was refused."""
    folders = [folder_of(job, out) for job in jobs]
    left = [place for place, folder in enumerate(folders) if not is_complete(folder)]
    errors = (
        carry_all_out([(jobs[place], folders[place]) for place in left], progress, engine) if left else []
    )
    refused = dict(zip(left, errors, strict=True))
    return [(folder, refused.get(place)) for place, folder in enumerate(folders)]


def is_complete(folder: RunFolder) -> bool:
    """Whether nothing is left to do in a run folder."""
    return folder.record.state == "complete" and folder.has_result


def run_in_memory(job: Job, progress: Progress, workers: Workers = 0) -> xr.Dataset:
    """The result of a job that keeps no files: the one that a run folder would hold."""
    if number_of(workers, job.model):  # which share files, or nothing
        with tempfile.TemporaryDirectory(prefix="layerscope-run-") as temporary:
            return run(job, Path(temporary), progress, workers).result()
    kept = RunInMemory(job.record)
    carry_out(job, kept, progress)
    return kept.result()


def folder_of(job: Job, out: Path) -> RunFolder:
    """The run folder of a job below `out`, made if need be."""
    model = re.sub(r"[^\w.-]+", "-", job.model.facts.name)[:40]
    path = out / f"{job.experiment.name}-{model}-{job.record.key()}"
    if RunFolder.is_one(path):
        return _asked_the_same(RunFolder.open(path), job)
    return RunFolder.create(path, job.record, job.inputs.model_dump(mode="json"))


def _asked_the_same(folder: RunFolder, job: Job) -> RunFolder:
    """Refuse a folder whose record asks for something else than its name says: parts would be of two questions."""
    if folder.record.key() != job.record.key():
        raise LayerscopeError(
            "the record of this run asks for something else than the command that it is named by",
            found=f"{folder.path / 'run.json'}",
            expected="the record of a run that was asked the same",
            hint=f"move that folder away, or go on with what it says: layerscope resume {folder.path}",
        )
    return folder


def resume(
    path: Path,
    progress: Progress,
    *,
    model: LayeredModel | str | None = None,
    trust_remote_code: bool = False,
    workers: Workers = 0,
) -> RunFolder:
    """Go on with an interrupted run; a complete one is left as it is. The rest as `prepare.again` takes it."""
    folder = RunFolder.open(path)
    if not is_complete(folder):
        job = again(folder, model=model, trust_remote_code=trust_remote_code)
        number = number_of(workers, job.model, folder.record.machine.threads)
        with names_from_a_record(), engine_of(number) as engine:
            carry_out(job, folder, progress, engine)
    return folder


@dataclass(frozen=True)
class Replay:
    """How a repeated run compares with the saved one.

    Attributes:
        verdict: every number bitwise the same, all within tolerance, or some changed.
        changed: variables beyond tolerance, with their largest difference.
        largest: the largest difference of any number, over the largest value of its variable.
        since: what differs between then and now: versions, threads, processor, Layerscope's own code.
    """

    verdict: Verdict
    changed: tuple[str, ...]
    largest: float
    since: tuple[str, ...]


def replay(
    path: Path,
    progress: Progress | None = None,
    *,
    model: LayeredModel | str | None = None,
    trust_remote_code: bool = False,
    workers: Workers = 0,
) -> Replay:
    """Run a complete run once more, from its record, and compare; the saved run is not touched.

    `model` and `trust_remote_code` as `prepare.again` takes them.

    Raises:
        LayerscopeError: the run is not complete.
    """
    folder = RunFolder.open(path)
    if not folder.has_result:
        raise LayerscopeError(
            "this run is not complete",
            found=path,
            expected="a run with a result",
            hint=f"layerscope resume {typed(path)}",
        )
    job = again(folder, model=model, trust_remote_code=trust_remote_code)
    with tempfile.TemporaryDirectory(prefix="layerscope-replay-") as temporary, names_from_a_record():
        fresh = RunFolder.create(Path(temporary), job.record.model_copy(update={"stages": {}}), folder.inputs)
        number = number_of(workers, job.model, folder.record.machine.threads)
        with engine_of(number) as engine:
            carry_out(job, fresh, progress or Silent(), engine)
        now = fresh.result()
    with threads(folder.record.machine.threads):
        here = this_machine(job.model.device, job.experiment)
        since = differing(folder.record.machine.model_dump(), here.model_dump())
    return compared(folder.result(), now, tuple(since))


def compared(before: xr.Dataset, after: xr.Dataset, since: tuple[str, ...]) -> Replay:
    """The verdict on two results of the same run."""
    names = list(dict.fromkeys([*before.variables, *after.variables]))
    changed, largest, same = [], 0.0, True
    for name in names:
        if name not in before.variables or name not in after.variables:
            changed.append(
                f"{name}: only in the {'saved' if name in before.variables else 'repeated'} result"
            )
            continue
        old, new = before.variables[name].values, after.variables[name].values
        sizes = [list(zip(data[name].dims, data[name].shape, strict=True)) for data in (before, after)]
        if sizes[0] != sizes[1] or old.dtype.kind != new.dtype.kind:
            changed.append(f"{name}: {old.dtype} {sizes[0]} -> {new.dtype} {sizes[1]}")
        elif old.dtype.kind == "f":
            same &= old.tobytes() == new.tobytes()
            difference = _largest_difference(old, new)
            largest = max(largest, difference)
            if not np.array_equal(np.isnan(old), np.isnan(new)):
                changed.append(f"{name}: other cells are empty")
            elif not np.allclose(old, new, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True):
                changed.append(f"{name}: differs by up to {difference:.2g} of its largest value")
        elif not np.array_equal(old, new):
            changed.append(f"{name}: other values")
    verdict: Verdict = "changed" if changed else ("bitwise" if same else "within tolerance")
    return Replay(verdict, tuple(changed), largest, since)


def _largest_difference(old: np.ndarray, new: np.ndarray) -> float:
    finite = np.isfinite(old) & np.isfinite(new)
    if not finite.any():
        return 0.0
    difference, size = np.abs(old[finite] - new[finite]).max(), np.abs(old[finite]).max()
    return float(difference / max(size, 1e-30))
