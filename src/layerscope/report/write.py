"""From run folders to one HTML file that opens from disk, with no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from layerscope.engines.engine import Engine, Task, values_of
from layerscope.engines.local import LocalEngine
from layerscope.errors import LayerscopeError
from layerscope.plots.strip import layers_at_a_glance
from layerscope.report.figures import PageFigure, page_figure
from layerscope.report.page import render
from layerscope.report.sections import Section, refused_section, section
from layerscope.report.twins import put_beside, twinned_row, twins_of
from layerscope.results.files import make_folder, write_text
from layerscope.results.store import RunFolder


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
        runs: at least one.
        path: the HTML file; its folder is made if need be.
        title: of the page; by default it names the models.
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
    html = render(shown, _at_a_glance(shown), put_beside(shown), title=title or _title(shown))
    make_folder(path.parent)
    write_text(path, html)
    return path


def sections_of(runs: Sequence[RunFolder], path: Path, engine: Engine | None = None) -> list[Section]:
    """What a page at `path` says of each run: claims are worked out and figures drawn, by an engine's workers."""
    tasks = (
        Task(number, f"the page of {run.path.name}", section, (run, number, path.parent))
        for number, run in enumerate(runs, start=1)
    )
    return list(values_of(engine or LocalEngine(), tasks))


def _title(sections: Sequence[Section]) -> str:
    twins = {twin.anchor for twin in twins_of(sections).values()}
    models = dict.fromkeys(one.model for one in sections if one.model and one.anchor not in twins)
    return "What each layer does" + (f": {', '.join(models)}" if models else "")


def _at_a_glance(sections: Sequence[Section]) -> PageFigure | None:
    twins = twins_of(sections)
    beside = {twin.anchor for twin in twins.values()}
    shown = [one for one in sections if one.anchor not in beside]
    several = len({one.model for one in shown if one.over_depth is not None}) > 1
    found = (
        twinned_row(
            one, twins.get(one.anchor), f"{one.experiment}, {one.model}" if several else one.experiment
        )
        for one in shown
    )
    rows = [row for row in found if row is not None]
    caption = "Dotted: the untrained twin." if any(row.twin is not None for row in rows) else ""
    drawn = layers_at_a_glance(rows, caption=caption) if rows else None
    return None if drawn is None else page_figure("layers", "The layers at a glance", drawn)
