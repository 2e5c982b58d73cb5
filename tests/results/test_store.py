from __future__ import annotations

import errno
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.files import make_folder, refuse_unwritable, write_text
from layerscope.results.record import Asked, Machine, RunRecord
from layerscope.results.schema import SCHEMA, quantity
from layerscope.results.store import RunFolder, runs_below

ASKED = Asked(
    experiment="made_up", settings={}, model="m", loadable=True, revision=None, weights="w", tokenizer="t",
    bos={}, chat=False, texts="x", device="cpu", dtype="float32",
)  # fmt: skip
MACHINE = Machine(processor="p", device_name="d", threads=1, environment={}, versions={}, code="c")
PART = xr.Dataset({"x": quantity(np.arange(4000.0), "token", "x")})
HOLD = """
import sys
from pathlib import Path
from layerscope.results.store import RunFolder
with RunFolder(Path(sys.argv[1])).writing():
    print("held", flush=True)
    sys.stdin.read()
"""


def new_record() -> RunRecord:
    return RunRecord(asked=ASKED, machine=MACHINE, facts={}, chunk_plan={})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", new_record(), {"prompts": []})


@pytest.fixture
def holder(folder: RunFolder) -> Iterator[subprocess.Popen[str]]:
    """Another process that is writing the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


# -- what is no run -------------------------------------------------------------------------------


def test_a_folder_without_a_record_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(LayerscopeError, match="not a run folder") as caught:
        RunFolder.open(tmp_path)
    assert "no run.json" in caught.value.found


def test_the_folder_above_a_run_names_the_run_in_it(folder: RunFolder) -> None:
    with pytest.raises(LayerscopeError, match="not a run folder") as caught:
        RunFolder.open(folder.path.parent)
    assert caught.value.hint == str(folder.path)


@pytest.mark.parametrize("name", ["missing", "file", "x" * 300, "file/below"])
def test_no_place_whatever_is_opened_with_a_traceback(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(LayerscopeError, match="not a run folder"):
        RunFolder.open(tmp_path / name)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"schema_number": "x"}', "\xff\xfe"])
def test_a_broken_record_is_named_and_nothing_else_is_touched(folder: RunFolder, content: str) -> None:
    folder.save_part("trace", 0, PART, item="a")
    (folder.path / "run.json").write_bytes(content.encode("latin-1"))

    with pytest.raises(LayerscopeError, match="record of this run is damaged") as caught:
        RunFolder.open(folder.path)
    assert "run.json" in caught.value.found
    assert folder.done("trace") == {0}


def test_a_run_of_a_newer_schema_is_refused_even_if_it_holds_new_fields(folder: RunFolder) -> None:
    path = folder.path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_number": SCHEMA + 1, "new": 1}))

    with pytest.raises(LayerscopeError, match="newer Layerscope"):
        RunFolder.open(folder.path)


@pytest.mark.parametrize("content", ["", "[1]", "3", "{"])
def test_broken_inputs_are_named(folder: RunFolder, content: str) -> None:
    (folder.path / "inputs.json").write_text(content)

    with pytest.raises(LayerscopeError, match="inputs of this run are damaged"):
        _ = folder.inputs


# -- parts ----------------------------------------------------------------------------------------


def test_parts_are_found_by_stage_and_strangers_are_passed_over(folder: RunFolder) -> None:
    for index in (3, 0):
        folder.save_part("trace", index, PART, item="a")
    for stranger in ("copy of 1.npz", "1 (2).npz", ".000001.npz.7.tmp"):
        (folder.path / "parts" / "trace" / stranger).write_bytes(b"")

    assert folder.done("trace") == {0, 3}
    assert folder.done("other") == set()


def test_a_part_of_another_question_is_refused(folder: RunFolder) -> None:
    folder.save_part("trace", 0, PART, item="a" * 64)

    xr.testing.assert_identical(folder.part("trace", 0, item="a" * 64), PART)
    with pytest.raises(LayerscopeError, match="answers another question"):
        folder.part("trace", 0, item="b" * 64)


def test_a_damaged_result_is_noticed_through_the_record(folder: RunFolder) -> None:
    record = folder.record
    record.result = folder.save_result(xr.Dataset({"text": quantity(["Paris"], "prompt", "text")}))
    folder.save_record(record)
    path = folder.path / "result.nc"
    path.write_bytes(path.read_bytes().replace(b"Paris", b"Parts"))

    with pytest.raises(LayerscopeError, match="damaged"):
        folder.result()


def test_runs_are_listed_oldest_first_at_any_depth(tmp_path: Path) -> None:
    for age, name in enumerate(["b", "deep/er/a", "c"]):
        run = RunFolder.create(tmp_path / name, new_record(), {})
        os.utime(run.path / "run.json", (1000 + age, 1000 + age))

    assert [run.path.name for run in runs_below(tmp_path)] == ["b", "a", "c"]
    assert runs_below(tmp_path / "missing") == []


# -- one writer -----------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_the_first_one_named(
    folder: RunFolder, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(LayerscopeError, match="another process is writing") as caught, folder.writing():
        pass
    assert f"process {holder.pid}" in caught.value.found


def test_a_killed_writer_holds_nothing_and_its_litter_goes(
    folder: RunFolder, holder: subprocess.Popen[str]
) -> None:
    litter = folder.path / "parts" / ".000001.npz.7.tmp"
    litter.write_bytes(b"half")
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    with folder.writing():
        assert not litter.exists()


def test_within_one_process_there_is_one_writer_too(folder: RunFolder) -> None:
    with folder.writing(), pytest.raises(LayerscopeError), folder.writing():
        pass


def test_the_lock_is_let_go_after_an_error(folder: RunFolder) -> None:
    with pytest.raises(ZeroDivisionError), folder.writing():
        _ = 1 / 0

    with folder.writing():
        assert (folder.path / "writer.json").is_file()
    assert not (folder.path / "writer.json").exists()


# -- disks that refuse ----------------------------------------------------------------------------


@pytest.fixture
def largest_file() -> Iterator[None]:
    """No file may grow beyond 4 kB: the system refuses in the middle of a write, as a full disk does."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("what", ["part", "result"])
def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    folder: RunFolder, largest_file: None, what: str
) -> None:
    folder.save_part("trace", 0, PART.isel(token=slice(9)), item="a")
    with pytest.raises(LayerscopeError, match="cannot write") as caught:
        folder.save_part("trace", 1, PART, item="a") if what == "part" else folder.save_result(PART)

    assert "full" in caught.value.found
    assert folder.done("trace") == {0}
    assert not folder.has_result
    assert not list(folder.path.rglob(".*.tmp"))


@pytest.mark.parametrize(
    ("number", "found"),
    [
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "full"),
        (errno.EROFS, "permission"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_whatever_the_system_answers_is_put_into_words(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, number: int, found: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    before = (folder.path / "run.json").read_bytes()
    monkeypatch.setattr(pathlib.Path, "write_bytes", refuse)
    with pytest.raises(LayerscopeError, match="cannot write") as caught:
        folder.save_record(new_record())

    assert found in caught.value.found
    assert (folder.path / "run.json").read_bytes() == before


# Tests may run as root, who may write anywhere: places that refuse even root stand in for forbidden ones.
@pytest.mark.parametrize("place", ["file/below", "file", "/proc/layerscope", "x" * 300])
def test_places_that_cannot_be_written_are_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(LayerscopeError, match="cannot write"):
        make_folder(tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("place", ["file/below", "file", "x" * 300])
def test_they_are_refused_before_slow_work_too_and_good_ones_are_not_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(LayerscopeError, match="cannot write"):
        refuse_unwritable(tmp_path / place)
    refuse_unwritable(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()

    with pytest.raises(LayerscopeError, match="cannot write") as caught:
        write_text(tmp_path / "report.html", "x")
    assert "a folder stands" in caught.value.found
