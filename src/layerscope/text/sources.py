"""What a source names: a file, a folder, or a set that comes with Layerscope."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from layerscope.bundled import bundled_folder
from layerscope.errors import LayerscopeError
from layerscope.text.record_fields import nearest, shown

_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def bundled_sets(kind: str) -> dict[str, Path]:
    """The sets of one kind ("prompts" or "passages") that come with Layerscope, by name."""
    return {path.stem: path for path in sorted(bundled_folder(kind).glob("*.jsonl"))}


def find_source(
    source: str | os.PathLike[str], *, kind: str, endings: Iterable[str], folders: bool
) -> Path | None:
    """The file (or folder) that a source names, or None if the text is no name of a file.

    A file that exists comes first, then a bundled set, then a folder.

    Args:
        source: a path, or text that may be one.
        kind: "prompts" or "passages".
        endings: what readable files end in; a text that ends so is taken for a path.
        folders: whether a folder can be read.

    Raises:
        LayerscopeError: the source is plainly a path, but nothing is there, or a folder is and cannot be
            read as one.
    """
    path, sets = Path(source), bundled_sets(kind)
    if _exists(path, Path.is_file):
        return path
    if isinstance(source, str) and _SET_NAME.fullmatch(source) and source in sets:
        return sets[source]
    if _exists(path, Path.is_dir) and (source or not isinstance(source, str)):
        return path if folders else _refuse_folder(path, kind)
    if isinstance(source, str) and not _looks_like_path(source, endings):
        return None
    raise missing(source, kind, sets)


def missing(source: str | os.PathLike[str], kind: str, sets: Iterable[str]) -> LayerscopeError:
    """The error for a file or set that is not there, with names near to it; or for what is no ordinary file."""
    path, sets = Path(source), list(sets)
    if special := _special(path):
        return LayerscopeError(
            f"this is no file of {kind}: {shown(os.fspath(source))[1:-1]}",
            found=special,
            expected="an ordinary file, which has an end",
            hint="copy what it gives into a file of your own",
        )
    near = [str(path.parent / name) for name in nearest(path.name, _names_in(path.parent))]
    near += nearest(path.stem, sets)
    folder = "" if _exists(path.parent, Path.is_dir) else f", nor the folder {shown(str(path.parent))}"
    return LayerscopeError(
        f"there is no such file of {kind}: {shown(os.fspath(source))[1:-1]}",
        found=f"no such file{folder}",
        expected=f"a file, or a bundled set: {', '.join(sets) or 'none here'}",
        hint=" or ".join(near) if near else "check the spelling and the folder you are in",
    )


def _refuse_folder(path: Path, kind: str) -> Path:
    raise LayerscopeError(
        f"this is a folder: {path}",
        found="a folder",
        expected=f"one file of {kind}",
        hint=f"name one file in it: {', '.join(_names_in(path)[:3]) or 'it is empty'}",
    )


def _looks_like_path(source: str, endings: Iterable[str]) -> bool:
    blanks = any(character.isspace() for character in source.strip())
    if source.lower().rstrip().endswith(tuple(endings)) and ("*" not in source or not blanks):
        return True
    return not blanks and ("/" in source or os.sep in source)


def _exists(path: Path, as_what: Callable[[Path], bool]) -> bool:
    try:
        return as_what(path)
    except (OSError, ValueError):  # too long for a file name, or not encodable as one
        return False


def _special(path: Path) -> str:
    """What stands at a path that is neither a file nor a folder; empty where nothing does."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "a place that may not be looked at"
    except (OSError, ValueError) as error:
        return "a link that leads round to itself" if getattr(error, "errno", 0) == errno.ELOOP else ""
    kinds = {
        "a device": (stat.S_ISCHR, stat.S_ISBLK),
        "a pipe": (stat.S_ISFIFO,),
        "a socket": (stat.S_ISSOCK,),
    }
    return next((name for name, tests in kinds.items() if any(test(mode) for test in tests)), "")


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except (OSError, ValueError):
        return []
