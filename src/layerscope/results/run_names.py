"""Which run is meant: a folder, the name of one below a folder, or the beginning of such a name."""

from __future__ import annotations

from pathlib import Path

from layerscope.errors import LayerscopeError

_SHOWN = 5


def run_named(given: Path, below: Path) -> Path:
    """The folder that is meant by a path, a run's name, or a beginning that only one run's name has.

    Args:
        given: what stands on the command line; a path that exists means itself.
        below: the folder whose runs are looked through; where there is none, a name means itself too.

    Raises:
        LayerscopeError: a bare name that no run begins with, or several.
    """
    if given.exists() or len(given.parts) != 1 or not below.is_dir():
        return given
    names = sorted(path.parent.name for path in below.glob("*/run.json"))
    found = [name for name in names if name == given.name] or [
        name for name in names if name.startswith(given.name)
    ]
    if len(found) == 1:
        return below / found[0]
    several = len(found) > 1
    shown = ", ".join((found if several else names)[:_SHOWN])
    raise LayerscopeError(
        "several runs begin so" if several else "there is no such run",
        found=f"{given}, looked for in {below}/",
        expected=f"one of {shown}" if shown else "a run folder, or the name of one there",
        hint=f"{found[0]}" if several else "layerscope list runs, or --runs FOLDER if they lie elsewhere",
    )
