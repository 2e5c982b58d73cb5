"""Sheets for people to judge what an experiment found."""

from __future__ import annotations

from pathlib import Path

from layerscope import experiments
from layerscope.errors import LayerscopeError
from layerscope.results.annotation_sheets import write_sheet
from layerscope.results.store import RunFolder


def annotate(path: Path, annotator: str) -> Path:
    """Write the empty sheet of a finished run for one annotator; returns where it lies.

    Raises:
        LayerscopeError: the run is not finished, its experiment asks nothing of people, or the
            annotator has a sheet already.
    """
    folder = RunFolder.open(path)
    experiment = experiments.load(folder.record.asked.experiment)
    if experiment.sheet is None:
        asking = [name for name in experiments.names() if experiments.load(name).sheet is not None]
        raise LayerscopeError(
            f"{experiment.name} asks nothing of annotators",
            found=path,
            expected=f"a run of {' or '.join(asking)}",
            hint=f"layerscope run {asking[0]}",
        )
    return write_sheet(folder.path, experiment.sheet(folder.result()), annotator)
