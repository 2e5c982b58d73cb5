"""One place that would flatten all others is written at the panel's edge; where none does, nothing is cut."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from layerscope.plots import curve_over_depth


def _drawn(*lines: list[float], log: bool = False, units: str = "nat"):
    values = xr.Dataset({"value": (("row", "layer"), np.array(lines), {"long_name": "harm", "units": units})})
    return curve_over_depth(
        values.assign_coords(row=[f"r{i}" for i in range(len(lines))]), log=log, clip=True
    )


@pytest.mark.parametrize(
    ("line", "text", "anchor"),
    [
        ([8.0, 1.0, 0.5, 0.2, 0.0], "↑ layer 0: 8 nats", "left"),
        ([0.2, 0.4, 0.5, 0.1, -7.0], "↓ layer 4: −7 nats", "right"),
    ],
)
def test_the_far_place_is_written_where_its_line_leaves(line: list[float], text: str, anchor: str) -> None:
    figure = _drawn(line)
    (note,) = figure.layout.annotations
    low, high = figure.layout.yaxis.range
    near = sorted(line, key=abs)[:-1]

    assert (note.text, note.xanchor) == (text, anchor)
    assert low < min(near) < max(near) < high
    assert not low < max(line, key=abs) < high
    np.testing.assert_array_equal(figure.data[0].y, line)


def test_of_several_lines_those_that_leave_are_said() -> None:
    (note,) = _drawn([8.0, 1.0, 0.5, 0.0], [6.0, 0.9, 0.1, 0.0], [0.5, 0.4, 0.1, 0.0]).layout.annotations

    assert note.text == "↑ layer 0: 6 to 8 nats"


def test_on_a_log_axis_distances_are_in_powers_of_ten_and_ticks_those_of_what_is_left() -> None:
    figure = _drawn([1.0, 200.0, 300.0, 500.0], log=True, units="1")
    low, high = (10**end for end in figure.layout.yaxis.range)

    assert 1 < low < 200 < 500 < high < 1000
    assert figure.layout.annotations[0].text == "↓ layer 0: 1"
    assert "300" in figure.layout.yaxis.ticktext
    assert not _drawn([100.0, 200.0, 300.0, 500.0], log=True).layout.annotations


@pytest.mark.parametrize("line", [[0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 9.0], [1.0, 9.0], [np.nan] * 4])
def test_what_flattens_nothing_is_drawn_whole(line: list[float]) -> None:
    figure = _drawn(line)

    assert not figure.layout.annotations
    assert figure.layout.yaxis.range is None


def test_without_being_asked_nothing_is_cut(curves: xr.Dataset) -> None:
    assert curve_over_depth(curves).layout.yaxis.range is None
