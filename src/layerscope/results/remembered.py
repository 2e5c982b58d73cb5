"""Small answers that are dear to find, kept in the user's cache folder by a digest of all that decides them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from layerscope.errors import LayerscopeError
from layerscope.results.files import write_text
from layerscope.results.record import digest

_FOLDER = "LAYERSCOPE_CACHE"


def recalled(kind: str, about: dict[str, Any]) -> Any | None:
    """What was kept of this kind under all that decides it, or None: nothing, or a file that cannot be read."""
    path = _path(kind, about)
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        if path is not None and (kept := json.loads(path.read_text(encoding="utf-8")))["about"] == about:
            return kept["answer"]
    return None


def keep(kind: str, about: dict[str, Any], answer: Any) -> None:
    """Keep an answer; where nothing can be written, it is found again next time."""
    path = _path(kind, about)
    with suppress(OSError, LayerscopeError):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps({"about": about, "answer": answer}))


def _path(kind: str, about: dict[str, Any]) -> Path | None:
    folder = _folder()
    return None if folder is None else folder / kind / f"{digest(about)[:32]}.json"


def _folder() -> Path | None:
    wanted = os.environ.get(_FOLDER, "")
    if wanted.lower() in ("off", "0", "none"):
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    with suppress(RuntimeError):  # nobody's home
        if wanted:
            return Path(wanted).expanduser()
        return (Path(base) if base else Path.home() / ".cache") / "layerscope"
    return None
