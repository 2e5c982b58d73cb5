"""Writing files so that a kill at any moment leaves either the old file or the new one."""

from __future__ import annotations

import errno
import os
import shlex
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


def typed(path: Path | str) -> str:
    """A path as it is typed into a shell: in quotes where it holds blanks or the like."""
    return shlex.quote(str(path))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda place: _write_bytes(place, content))


def _write_bytes(place: Path, content: bytes | memoryview) -> None:
    place.write_bytes(content)


def make_folder(path: Path) -> Path:
    """The folder, made with its parents if need be, and known to be writable."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable.{os.getpid()}"
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)
    return path


def refuse_unwritable(path: Path) -> None:
    """Refuse a folder that could not be made or written, without making it: asked before slow work.

    Raises:
        LayerscopeError: a file stands in its way, or writing is not allowed there.
    """
    with explained(path):
        there = next(place for place in [path, *path.absolute().parents] if place.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file", str(there))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "no permission", str(there))


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed writer left; only the one writer of a folder may."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into words."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def readable(path: Path, *, missing: str = "check the spelling and the folder you are in") -> Iterator[None]:
    """Turn the operating system's refusals to read into words, with a hint by their cause.

    Args:
        path: what is read.
        missing: what to try where nothing is there.
    """
    try:
        yield
    except OSError as error:
        raise unreadable(path, error, missing=missing) from error


def unreadable(path: Path | str, error: OSError, *, missing: str = "check the spelling") -> LayerscopeError:
    """Why a file or folder cannot be read; see `readable`."""
    found, hint = str(error.strerror or error), f"ls -l {path}"
    if error.errno == errno.ENOENT:
        found, hint = "no such file", missing
    elif error.errno in _FORBIDDEN:
        found, hint = "no permission to read it", f"ls -ld {path}   (chmod u+rX gives its owner permission)"
    elif error.errno == errno.ENAMETOOLONG:
        found, hint = "a name that is too long for this disk", "a shorter name"
    elif error.errno in _MANY_OPEN:
        found, hint = "too many files are open", "ulimit -n 4096"
    elif error.errno == errno.EIO:
        found, hint = "the disk failed while it was read", "a copy of it on another disk"
    return LayerscopeError(
        f"the file cannot be read: {path}", found=found, expected="a file that can be read", hint=hint
    )


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_IN_THE_WAY = (errno.ENOTDIR, errno.EEXIST)
_MANY_OPEN = (errno.EMFILE, errno.ENFILE)


def unwritable(path: Path | str, error: OSError) -> LayerscopeError:
    """Why a place cannot be written, with a hint by its cause."""
    found, hint = f"{error.strerror or error}", "another folder, with --out"
    if error.errno in _FULL:
        found, hint = "the disk is full", "free some space, then give the same command again"
    elif error.errno in _FORBIDDEN:
        found = "no permission to write there"
    elif error.errno in _IN_THE_WAY:
        found = "a file stands where a folder is needed"
    elif error.errno == errno.EISDIR:
        found = "a folder stands where a file is needed"
    elif error.errno == errno.ENAMETOOLONG:
        found, hint = "a name that is too long for this disk", "a shorter name, with --out"
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
