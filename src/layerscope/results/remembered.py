"""Small answers that are dear to find, kept in the user's cache folder by a digest of all that decides them.

Environment: LAYERSCOPE_CACHE is the folder, or `off`; LAYERSCOPE_KIND (LAYERSCOPE_VERDICTS, say) the folder of one
kind of answers, or `off`.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from layerscope.errors import LayerscopeError
from layerscope.results.bounded import cache_folder
from layerscope.results.files import write_text
from layerscope.results.record import digest

_MOST_FILES = 200


def recalled(kind: str, about: Any) -> Any | None:
    """What was kept of this kind under all that decides it, or None: nothing, or a file that cannot be read."""
    path = _path(kind, about)
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        if path is not None and (kept := json.loads(path.read_text(encoding="utf-8")))["about"] == about:
            with suppress(OSError):
                os.utime(path)
            return kept["answer"]
    return None


def keep(kind: str, about: Any, answer: Any) -> None:
    """Keep an answer; where nothing can be written, it is found again next time."""
    path = _path(kind, about)
    with suppress(OSError, LayerscopeError):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_room(path.parent)
            write_text(path, json.dumps({"about": about, "answer": answer}))


def _path(kind: str, about: Any) -> Path | None:
    folder = cache_folder(kind, f"LAYERSCOPE_{kind.upper()}")
    return None if folder is None else folder / f"{digest(about)[:32]}.json"


def _make_room(folder: Path) -> None:
    """Remove what was used longest ago, and temporary files, beyond a number of files."""
    files: list[tuple[float, Path]] = []
    for path in folder.iterdir():
        with suppress(OSError):
            files.append((path.stat().st_mtime, path))
    for _, path in sorted(files)[: max(0, len(files) - _MOST_FILES)]:
        with suppress(OSError):
            path.unlink()
