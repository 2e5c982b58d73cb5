from __future__ import annotations

import pytest
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.plots.axes import (
    depth_axis,
    depth_ticks,
    label,
    quantity_title,
    shortened,
    token_label,
    token_ticks,
)


def test_layer_and_depth_are_found_and_nothing_else() -> None:
    assert depth_axis(xr.DataArray([[1]], dims=("category", "depth"))) == "depth"
    assert depth_axis(xr.DataArray([1], dims="layer")) == "layer"

    with pytest.raises(LayerscopeError, match="found     dimensions head"):
        depth_axis(xr.DataArray([1], dims="head"))
    with pytest.raises(LayerscopeError, match="exactly one of depth and layer"):
        depth_axis(xr.DataArray([[1]], dims=("layer", "depth")))


def test_hostile_texts_are_shown_exactly(hostile: list[tuple[str, str]]) -> None:
    for stored, shown in hostile:
        assert label(stored) == shown
        assert token_label(stored) == shown


def test_text_that_is_not_in_stored_form_is_taken_as_it_is() -> None:
    assert label('say "x" \\ now') == 'say "x" \\ now'


def test_tokens_stand_on_numbers_so_that_repeated_ones_stay_apart() -> None:
    ticks = token_ticks(["The", " the", " the", "\\n"], starred=[1])

    assert ticks["tickvals"] == [0, 1, 2, 3]
    assert ticks["ticktext"] == ["The", "·the ★", "·the", "⏎"]


def test_a_long_label_is_cut_before_it_is_escaped() -> None:
    assert token_label("<" * 40) == "&lt;" * 31 + "…"
    assert shortened("abc", 3) == "abc"


@pytest.mark.parametrize(("last", "step"), [(1, 1), (4, 1), (12, 1), (13, 2), (24, 2), (48, 4), (126, 10)])
def test_depth_ticks_are_whole_and_few(last: int, step: int) -> None:
    assert depth_ticks(last)["dtick"] == step


def test_units_are_told_unless_there_are_none() -> None:
    def named(units: str) -> xr.DataArray:
        return xr.DataArray(0.0, attrs={"long_name": "width & <depth>", "units": units})

    assert quantity_title(named("block")) == "width &amp; &lt;depth&gt; [block]"
    assert quantity_title(named("1")) == "width &amp; &lt;depth&gt;"
    assert quantity_title(named("block"), 8) == "width &amp;<br>&lt;depth&gt;<br>[block]"
