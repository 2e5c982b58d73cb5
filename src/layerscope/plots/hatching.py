"""Cells that do not exist, drawn so that nobody takes them for zero."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from layerscope.plots.theme import NEUTRAL


def hatching(grid: np.ndarray, x: np.ndarray) -> go.Bar:
    """Hatched bars over the NaN cells of a heatmap whose rows are 0, 1, 2, ...; one for each run in a row.

    Heatmaps know no pattern; bars do, and are drawn above them.
    """
    runs = [run for row, line in enumerate(np.isnan(grid)) for run in _runs(row, line)]
    return go.Bar(
        x=[float(x[start] + x[stop - 1]) / 2 for _, start, stop in runs],
        y=[1] * len(runs),
        base=[row - 0.5 for row, _, _ in runs],
        width=[float(x[stop - 1] - x[start]) + 1 for _, start, stop in runs],
        marker={
            "color": "rgba(0,0,0,0)",
            "line": {"width": 0},
            "pattern": {
                "shape": "/",
                "size": 6,
                "solidity": 0.15,
                "fgcolor": NEUTRAL,
                "bgcolor": "rgba(0,0,0,0)",
            },
        },
        hovertemplate="no such cell<extra></extra>",
        showlegend=False,
    )


def _runs(row: int, line: np.ndarray) -> list[tuple[int, int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
    return [(row, int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
