"""Stacked bars of guesses: shares, outlines, what is left out."""

import numpy as np
import pytest

from layerscope import LayerscopeError
from layerscope.plots.guess_bars import guess_bars


def test_bars_are_shares_with_the_right_guess_outlined() -> None:
    counts = np.zeros((2, 3, 2), dtype=int)
    counts[0, 0] = [3, 1]
    counts[1, 2] = [1, 1]  # two cases: too few

    figure = guess_bars(counts, classes=["<one>", "two"], place_title="place", first_place=5, fewest=3)

    first = figure.data[0]
    assert list(first.x) == [5, 6, 7]
    assert first.y[0] == pytest.approx(0.75)
    assert np.isnan(first.y[1:]).all()
    assert first.name == "&lt;one&gt;"
    outlined = [(trace.marker.line.width > 0) for trace in figure.data]
    assert outlined == [True, False, False, True]
    assert np.isnan(figure.data[2].y).all()
    assert sum(trace.showlegend for trace in figure.data) == 2


def test_other_shapes_are_refused() -> None:
    with pytest.raises(LayerscopeError, match="cannot be drawn"):
        guess_bars(np.zeros((2, 3, 4), dtype=int), classes=["a", "b"], place_title="place")


def test_the_legend_is_in_order_and_outlines_nothing() -> None:
    figure = guess_bars(np.full((3, 4, 3), 5), classes=["a", "b", "c"], place_title="place")

    listed = sorted((bar for bar in figure.data if bar.showlegend), key=lambda bar: bar.legendrank)
    assert [bar.name for bar in listed] == ["a", "b", "c"]
    assert all(bar.marker.line.width == 0 for bar in listed)


def test_places_are_numbered_as_far_as_there_is_room() -> None:
    few, many = (
        guess_bars(
            np.ones((2, places, 2), dtype=int) * 3, classes=["a", "b"], place_title="place", first_place=1
        )
        for places in (20, 54)
    )

    assert few.layout.xaxis2.dtick == 1
    assert many.layout.xaxis2.dtick == 3
    assert many.layout.xaxis2.tick0 == 1
