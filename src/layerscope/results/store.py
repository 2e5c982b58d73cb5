"""A run folder: run.json, inputs.json, parts/, result.nc.

Written by one process at a time, read by any. Nothing here knows what an experiment means.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import filelock
import xarray as xr
from pydantic import ValidationError

from layerscope.errors import LayerscopeError
from layerscope.results.files import explained, make_folder, readable, remove_leftovers, typed, write_text
from layerscope.results.netcdf import read_result, refuse_newer, write_result
from layerscope.results.parts import read_part, write_part
from layerscope.results.record import CHANGING, RunRecord, now, said
from layerscope.results.seal import SEAL, is_edited, sealed
from layerscope.results.strict_json import parsed


@runtime_checkable
class RunStore(Protocol):
    """Where a run is kept while it is carried out: a folder, or memory (results/memory.py)."""

    @property
    def record(self) -> RunRecord:
        """What was asked, and how far it has come."""

    def save_record(self, record: RunRecord) -> None:
        """Keep the record anew."""

    def writing(self) -> AbstractContextManager[None]:
        """Hold the store while it is written."""

    def done(self, stage: str) -> set[int]:
        """Indices of the parts of a stage that are kept."""

    def save_part(self, stage: str, index: int, part: xr.Dataset, *, item: str) -> None:
        """Keep what one work item gave."""

    def part(self, stage: str, index: int, *, item: str | None = None) -> xr.Dataset:
        """A kept part."""

    def save_result(self, result: xr.Dataset) -> str:
        """Keep the concluded result; returns its digest."""

    def result(self) -> xr.Dataset:
        """The concluded result."""


class RunFolder:
    """One run on disk.

    Open an existing one with `RunFolder.open(path)`; make one with `RunFolder.create`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, record: RunRecord, inputs: dict[str, Any]) -> RunFolder:
        """A new run folder with its record and inputs; an interrupted creation can be repeated."""
        make_folder(path / "parts")
        folder = cls(path)
        write_text(path / "inputs.json", json.dumps(sealed(inputs)))
        folder._write(sealed(record.model_dump(mode="json"), CHANGING))
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder.

        Raises:
            LayerscopeError: not a run folder, a broken run.json, or one of a newer schema.
        """
        if not cls.is_one(path):
            inside = [run.path for run in runs_below(path)]
            raise LayerscopeError(
                "this is not a run folder",
                found=f"{path}: {_instead(path)}",
                expected="a folder that layerscope run made",
                hint=f"{inside[-1]}" if inside else "layerscope list runs",
            )
        folder = cls(path)
        _ = folder.record
        return folder

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether there is a run at this place."""
        try:
            return (path / "run.json").is_file()
        except OSError:  # a name too long, no permission to look
            return False

    # -- run.json and inputs.json ------------------------------------------------------------

    @property
    def record(self) -> RunRecord:
        """The record as it stands on disk.

        Raises:
            LayerscopeError: it cannot be read, is damaged or of a newer schema, or what was asked has been edited.
        """
        path = self.path / "run.json"
        with _damaged("the record of this run is damaged", path, _RESTORE):
            content = parsed(_text(path, missing=_RESTORE))
            refuse_newer(int(content.get("schema_number", 0)), path)
            record = RunRecord.model_validate(content)
            if is_edited(content, CHANGING):
                raise _edited(path)
            return record

    def save_record(self, record: RunRecord) -> None:
        """Write run.json anew; a record that carried a digest carries that of what is written."""
        content = record.model_dump(mode="json")
        self._write(content if record.seal is None else sealed(content, CHANGING))

    def _write(self, record: dict[str, Any]) -> None:
        write_text(self.path / "run.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The tokenised prompts and passages that the run was given, as plain JSON."""
        path = self.path / "inputs.json"
        with _damaged("the inputs of this run are damaged", path, _AGAIN):
            content = dict(parsed(_text(path, missing=_AGAIN)))
            if is_edited(content):
                raise _edited(path)
            return {name: value for name, value in content.items() if name != SEAL}

    # -- parts -------------------------------------------------------------------------------

    def part_path(self, stage: str, index: int) -> Path:
        """Where a part lies; the index is its item's place in the stage."""
        return self.path / "parts" / stage / f"{index:06d}.npz"

    def done(self, stage: str) -> set[int]:
        """Indices of the parts of a stage that are on disk."""
        folder = self.path / "parts" / stage
        with readable(folder):
            return {int(path.stem) for path in folder.glob("*.npz") if path.stem.isdecimal()}

    def save_part(self, stage: str, index: int, part: xr.Dataset, *, item: str) -> None:
        """Keep what one work item gave."""
        path = self.part_path(stage, index)
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)  # parts/ may have been lost
        write_part(path, part, item=item)

    def part(self, stage: str, index: int, *, item: str | None = None) -> xr.Dataset:
        """A saved part.

        Args:
            stage: name of the stage.
            index: the item's place in it.
            item: digest of the item it should answer, or None to take it as it is.

        Raises:
            LayerscopeError: the part is damaged, or answers another question.
        """
        path = self.part_path(stage, index)
        dataset, answered = read_part(path)
        if item is not None and item != answered:
            raise LayerscopeError(
                "a part of this run answers another question",
                found=f"{path}: item {answered[:12]}",
                expected=f"item {item[:12]}",
                hint="the run command once more: what another version of Layerscope began, it begins anew in a folder "
                f"of its own; or delete that file, then: layerscope resume {typed(self.path)}",
            )
        return dataset

    # -- the result --------------------------------------------------------------------------

    @property
    def has_result(self) -> bool:
        """Whether the run has been concluded."""
        return (self.path / "result.nc").is_file()

    def save_result(self, result: xr.Dataset) -> str:
        """Keep the concluded result; returns the digest that `run.json` records."""
        return write_result(self.path / "result.nc", result)

    def result(self) -> xr.Dataset:
        """The concluded result.

        Raises:
            LayerscopeError: there is none yet, or it is not, byte for byte, the one that was saved, or it is another
                experiment's.
        """
        record = self.record
        result = read_result(self.path / "result.nc", digest=record.result)
        measured, asked = result.attrs.get("experiment", record.asked.experiment), record.asked.experiment
        if measured != asked:
            raise LayerscopeError(
                "the record of this run asks for another experiment than its result is of",
                found=f"{measured} in {self.path / 'result.nc'}, {asked} in run.json",
                expected="run.json as Layerscope wrote it",
                hint="restore that file; parts/ and result.nc beside it are untouched",
            )
        return result

    # -- one writer --------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder's lock; the system lets go of it when the process dies, however it dies.

        Raises:
            LayerscopeError: another process is writing this run.
        """
        lock = filelock.FileLock(self.path / "writer.lock", timeout=0)
        with explained(self.path):
            try:
                lock.acquire()
            except filelock.Timeout as error:
                raise self._locked() from error
        try:
            about = {"process": os.getpid(), "host": socket.gethostname(), "since": now()}
            write_text(self.path / "writer.json", json.dumps(about))
            remove_leftovers(self.path)
            yield
        finally:
            with suppress(OSError):
                (self.path / "writer.json").unlink(missing_ok=True)
            lock.release()

    def _locked(self) -> LayerscopeError:
        return LayerscopeError(
            "another process is writing this run",
            found=f"{self.path}: {self._writer()}",
            expected="one writer at a time",
            hint=f"wait for it, or stop it; then: layerscope resume {typed(self.path)}",
        )

    def _writer(self) -> str:
        try:
            about = json.loads((self.path / "writer.json").read_text(encoding="utf-8"))
            return f"process {about['process']} on {about['host']} since {about['since']}"
        except (OSError, ValueError, KeyError):
            return "a process that has just begun"


_AGAIN = "run the experiment again from its texts"
_RESTORE = "restore that file; parts/ and result.nc beside it are untouched"


def _text(path: Path, *, missing: str) -> str:
    with readable(path, missing=missing):
        return path.read_text(encoding="utf-8")


@contextmanager
def _damaged(problem: str, path: Path, hint: str) -> Iterator[None]:
    """Whatever a file that is not as it was written raises, put into words."""
    try:
        yield
    except LayerscopeError:
        raise
    except (ValueError, AttributeError, TypeError) as error:
        found = said(error) if isinstance(error, ValidationError) else str(error)
        raise LayerscopeError(
            problem, found=f"{path}: {found}", expected=f"{path.name} as Layerscope wrote it", hint=hint
        ) from error


def _edited(path: Path) -> LayerscopeError:
    return LayerscopeError(
        "what this run was asked has been edited since it began",
        found=f"{path}, whose digest is of other content",
        expected=f"{path.name} as Layerscope wrote it",
        hint="undo the edit; to ask something else, layerscope run begins another run",
    )


def _instead(path: Path) -> str:
    try:
        return "no run.json in it" if path.is_dir() else ("a file" if path.exists() else "no such folder")
    except OSError as error:
        return str(error.strerror)


def runs_below(folder: Path) -> list[RunFolder]:
    """Every run folder in a folder, at any depth, oldest first."""
    try:
        found = [(path.stat().st_mtime, path.parent) for path in folder.rglob("run.json")]
    except OSError:  # no permission, or removed while we look
        return []
    return [RunFolder(path) for _, path in sorted(found)]
