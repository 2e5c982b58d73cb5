"""Folders of the user's cache: where they lie, and how each stays within a bound of bytes.

Environment: LAYERSCOPE_CACHE is the folder of all of them, or `off`; each has a variable of its own besides.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_OFF = ("off", "0", "none")
_STALE_SECONDS = 3600.0


def cache_folder(kind: str, variable: str) -> Path | None:
    """Where one kind of things is kept; None where nothing is.

    Args:
        kind: name of its folder among the others.
        variable: of the environment, which names another folder for this kind, or `off`.
    """
    own, common = os.environ.get(variable, ""), os.environ.get("LAYERSCOPE_CACHE", "")
    if (own or common).lower() in _OFF:
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    with suppress(RuntimeError):  # nobody's home
        if own:
            return Path(own).expanduser()
        if common:
            return Path(common).expanduser() / kind
        return (Path(base) if base else Path.home() / ".cache") / "layerscope" / kind
    return None


def allowed_bytes(variable: str, default_gb: float) -> int:
    """Most bytes that a folder may hold: gigabytes by a variable of the environment, or the default."""
    try:
        return int(float(os.environ.get(variable, default_gb)) * 1e9)
    except ValueError:
        return int(default_gb * 1e9)


def make_room(folder: Path, wanted: int, bound: int, pattern: str) -> bool:
    """Whether the folder is there; removes what was used longest ago until so many more bytes are within the bound.

    Args:
        folder: made where it is missing.
        wanted: bytes that come.
        bound: most bytes that it may hold.
        pattern: names of what counts, files or folders; their time is that of their last use.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        entries = sorted(_entries(folder, pattern))
    except OSError:
        return False
    held = sum(size for _, size, _ in entries)
    for _, size, path in entries:
        if held + wanted <= bound:
            break
        with suppress(OSError):
            remove(path)
            held -= size
    return True


def remove(path: Path) -> None:
    """Remove a file, or a folder with what is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _entries(folder: Path, pattern: str) -> Iterator[tuple[float, int, Path]]:
    """When each was used last, its size, and where it lies."""
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):  # another process has just removed it
            files = path.iterdir() if path.is_dir() else [path]
            yield path.stat().st_mtime, sum(file.stat().st_size for file in files), path


def _remove_stale(folder: Path) -> None:
    """Remove what no writer can still be at work on."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                remove(path)
