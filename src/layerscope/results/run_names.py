"""Which runs are meant: a folder, the name of a run below a folder, or the beginning of such a name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.store import RunFolder, runs_below

RUNS = Path("runs")
"""Where runs are looked for by name where no other folder is given."""
_SHOWN = 12


def run_named(given: Path, below: Path = RUNS) -> Path:
    """The folder that is meant by a path, by a name below a folder, or by the only run's name that begins so.

    Args:
        given: what a person wrote; a path that exists means itself.
        below: the folder that is looked through, at any depth.

    Raises:
        LayerscopeError: no run begins so, or several do.
    """
    for path in (given, below / given):
        if os.path.exists(path):  # Path.exists raises where a name is too long
            return path
    names = sorted(run.path.relative_to(below) for run in runs_below(below))
    found = [name for name in names if name.name == str(given)]
    found = found or [name for name in names if name.name.startswith(str(given))]
    if len(found) == 1:
        return below / found[0]
    if found:
        raise LayerscopeError(
            "several runs begin so",
            found=f"{given}, in {below}: {_listed(found)}",
            expected="a beginning that only one run has",
            hint=f"{found[-1]}",
        )
    there = f"none of {_listed(names)}" if names else "no runs" if below.is_dir() else "no such folder"
    raise LayerscopeError(
        "this is not a run folder, and no run's name begins so",
        found=f"{given}: no such folder; in {below}: {there}",
        expected="a run folder, a run's name or its beginning",
        hint="layerscope list runs, or --runs FOLDER where they lie elsewhere",
    )


def runs_meant(given: Any) -> list[RunFolder]:
    """Run folders one by one; a folder above some stands for all of them, oldest first.

    Args:
        given: a path or a name, a run folder, what `open_run` gave, or several of these.

    Raises:
        LayerscopeError: no run there, or something that is not kept in a folder.
    """
    alone = isinstance(given, str | Path | RunFolder | xr.Dataset) or hasattr(given, "folder")
    return [run for one in ([given] if alone else given) for run in _runs(getattr(one, "folder", one))]


def _runs(given: Any) -> Sequence[RunFolder]:
    if isinstance(given, RunFolder):
        return [given]
    if not isinstance(given, str | Path):
        raise LayerscopeError(
            "only saved runs can be read here",
            found=f"a {type(given).__name__} in memory",
            expected="run folders, or names of runs",
            hint='ls.run(..., out="runs") keeps a run in a folder',
        )
    path = run_named(Path(given))
    if RunFolder.is_one(path):  # a damaged one too: whoever reads it says what is wrong with it
        return [RunFolder(path)]
    return runs_below(path) or [RunFolder.open(path)]


def _listed(names: Sequence[Path]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more
