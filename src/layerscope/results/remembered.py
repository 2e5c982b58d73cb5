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
from layerscope.results.bounded import cache_folder, make_room
from layerscope.results.files import write_text
from layerscope.results.record import digest

_MOST_BYTES = 20_000_000


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
            written = json.dumps({"about": about, "answer": answer})
            make_room(path.parent, len(written), _MOST_BYTES, "*.json")
            write_text(path, written)


def _path(kind: str, about: Any) -> Path | None:
    folder = cache_folder(kind, f"LAYERSCOPE_{kind.upper()}")
    return None if folder is None else folder / f"{digest(about)[:32]}.json"
