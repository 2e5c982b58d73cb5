"""From run folders to one HTML file that opens from disk, with no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from layerscope.atlas.reproduced import saved
from layerscope.engines.engine import Engine, Task, values_of
from layerscope.engines.local import LocalEngine
from layerscope.errors import LayerscopeError
from layerscope.report.models import models_of
from layerscope.report.page import render
from layerscope.report.sections import Section, refused_section, section
from layerscope.results.files import make_folder, write_text
from layerscope.results.run_names import runs_meant
from layerscope.results.store import RunFolder
from layerscope.results.twins import twin_runs_of


def write_report(
    runs: Sequence[RunFolder],
    path: Path,
    *,
    title: str | None = None,
    refused: Mapping[str, LayerscopeError] | None = None,
    sections: Sequence[Section] | None = None,
) -> Path:
    """Write the report of these runs, in the order given; returns where it lies.

    A run without a result appears with its progress, a damaged one with what is wrong with it; none
    of them hides another.

    Args:
        runs: at least one; untrained twins stand beside their model, where that is among them.
        path: the HTML file; its folder is made if need be.
        title: of the page; by default it says what each layer of the model does.
        refused: experiments that could not be run, with the reason, to be listed behind the others.
        sections: what `sections_of` gave for these runs and this path, where it is at hand.

    Raises:
        LayerscopeError: there are no runs, or the file cannot be written.
    """
    if not runs:
        raise LayerscopeError(
            "there is nothing to report",
            found="no runs",
            expected="at least one run folder",
            hint="layerscope run causal_trace",
        )
    shown = [
        *(sections_of(runs, path) if sections is None else sections),
        *(
            refused_section(name, error, len(runs) + number)
            for number, (name, error) in enumerate((refused or {}).items(), start=1)
        ),
    ]
    posts = saved(runs[0].path.resolve().parent)
    html = render(models_of(shown, _folder_of(runs, path)), title=title, posts=posts)
    make_folder(path.parent)
    write_text(path, html)
    return path


def report_on(runs: Any, path: str | Path = "report.html") -> Path:
    """The same of a folder of runs, run folders, what `open_run` gave, or several of these."""
    return write_report(runs_meant(runs), Path(path))


def sections_of(runs: Sequence[RunFolder], path: Path, engine: Engine | None = None) -> list[Section]:
    """What a page at `path` says of each run: claims are worked out and figures drawn, by an engine's workers.

    Untrained twins of a run have no section of their own: they stand beside it.
    """
    shown, twins = apart(runs)
    tasks = (
        Task(number, f"the page of {run.path.name}", section, (run, number, path.parent, twins))
        for number, run in enumerate(shown, start=1)
    )
    return list(values_of(engine or LocalEngine(), tasks))


def apart(runs: Sequence[RunFolder]) -> tuple[list[RunFolder], list[RunFolder]]:
    """Runs that have a section of their own, and untrained twins of these."""
    twins: set[Path] = set()
    for run in runs:
        with suppress(LayerscopeError, OSError):  # a damaged one is shown as such
            if run.record.asked.untrained is None:
                twins |= {twin.path.resolve() for twin in twin_runs_of(run, runs).values()}
    sides: tuple[list[RunFolder], list[RunFolder]] = ([], [])
    for run in runs:
        sides[run.path.resolve() in twins].append(run)
    return sides


def _folder_of(runs: Sequence[RunFolder], path: Path) -> str:
    """The folder that holds the runs, as one who reads the page beside it would name it."""
    above = runs[0].path.resolve().parent
    return path.parent.name or "." if above == path.parent.resolve() else str(above)
