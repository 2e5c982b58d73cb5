"""Run, resume and replay."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.jobs.measuring import carry_out, differing, threads
from layerscope.jobs.prepare import Job, again, this_machine
from layerscope.jobs.progress import Progress, Silent
from layerscope.models.layered import LayeredModel
from layerscope.results.memory import RunInMemory
from layerscope.results.store import RunFolder
from layerscope.results.trust import names_from_a_record

Verdict = Literal["bitwise", "within tolerance", "changed"]
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5


def run(job: Job, out: Path, progress: Progress) -> RunFolder:
    """Carry a job out in a folder below `out`, named by what was asked.

    Asking the same again goes on where the last attempt stopped, or returns at once when it is
    complete; a plan's parts are used too.
    """
    folder = folder_of(job, out)
    if not (folder.record.state == "complete" and folder.has_result):
        carry_out(job, folder, progress)
    return folder


def run_in_memory(job: Job, progress: Progress) -> xr.Dataset:
    """The result of a job that keeps no files: the one that a run folder would hold."""
    kept = RunInMemory(job.record)
    carry_out(job, kept, progress)
    return kept.result()


def folder_of(job: Job, out: Path) -> RunFolder:
    """The run folder of a job below `out`, made if need be."""
    model = re.sub(r"[^\w.-]+", "-", job.model.facts.name)[:40]
    path = out / f"{job.experiment.name}-{model}-{job.record.key()}"
    if RunFolder.is_one(path):
        return RunFolder.open(path)
    return RunFolder.create(path, job.record, job.inputs.model_dump(mode="json"))


def resume(
    path: Path,
    progress: Progress,
    *,
    model: LayeredModel | str | None = None,
    trust_remote_code: bool = False,
) -> RunFolder:
    """Go on with an interrupted run; a complete one is left as it is. The rest as `prepare.again` takes it."""
    folder = RunFolder.open(path)
    if not (folder.record.state == "complete" and folder.has_result):
        job = again(folder, model=model, trust_remote_code=trust_remote_code)
        with names_from_a_record():
            carry_out(job, folder, progress)
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
            hint=f"layerscope resume {path}",
        )
    job = again(folder, model=model, trust_remote_code=trust_remote_code)
    with tempfile.TemporaryDirectory(prefix="layerscope-replay-") as temporary, names_from_a_record():
        fresh = RunFolder.create(Path(temporary), job.record.model_copy(update={"stages": {}}), folder.inputs)
        carry_out(job, fresh, progress or Silent())
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
