"""Writing files so that a kill at any moment leaves either the old file or the new one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from layerscope.errors import LayerscopeError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a temporary neighbour of `path`, then move it into place.

    The file's bytes reach the disk before its name does, so a crash cannot leave a named but
    empty file.

    Raises:
        LayerscopeError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        try:
            write(temporary)
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda place: _write_text(place, text))


def _write_text(place: Path, text: str) -> None:
    place.write_text(text, encoding="utf-8")


def make_folder(path: Path) -> Path:
    """The folder, made with its parents if need be, and known to be writable."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable.{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    return path


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _refusal(path, "the disk is full", "free some space, then: layerscope resume") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise _refusal(path, "no permission to write there", "another folder, with --out") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise _refusal(
                path, "a file stands where a folder is needed", "another folder, with --out"
            ) from error
        raise


def _refusal(path: Path, found: str, hint: str) -> LayerscopeError:
    return LayerscopeError(
        f"cannot write {path}",
        found=found,
        expected="a folder that can be written, with space left",
        hint=hint,
    )


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
