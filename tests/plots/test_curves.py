from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.plots import StripRow, curve_over_depth, layers_at_a_glance, rows_by_category


def test_lines_hold_the_numbers_and_are_named(curves: xr.Dataset) -> None:
    figure = curve_over_depth(curves)
    lines = [trace for trace in figure.data if trace.hoverinfo != "skip"]

    np.testing.assert_array_equal(lines[0].y, curves.value[0])
    np.testing.assert_array_equal(lines[1].x, range(5))
    assert [line.name for line in lines] == ["facts", "&lt;b&gt;", "null"]
    assert lines[0].customdata[1] == "[0.05, 0.20], n = 40"
    assert figure.layout.xaxis.title.text == "depth [layers applied]"
    assert figure.layout.yaxis.title.text == "share of the effect recovered"


def test_a_missing_interval_is_a_gap_in_the_band_and_no_zero(curves: xr.Dataset) -> None:
    figure = curve_over_depth(curves)
    whole, broken = (trace for trace in figure.data if trace.hoverinfo == "skip")
    line = next(trace for trace in figure.data if trace.name == "&lt;b&gt;")

    assert whole.fill == "toself"
    np.testing.assert_array_equal(whole.x, [0, 1, 2, 3, 4, 4, 3, 2, 1, 0])
    np.testing.assert_array_equal(broken.x, [0, 1, 1, 0, np.nan, 3, 4, 4, 3])
    np.testing.assert_allclose(broken.y, [-0.05, 0.25, 0.4, 0.1, np.nan, 0.85, 0.95, 1.1, 1.0])
    assert line.customdata[2] == "no interval, n = 38"


def test_the_null_is_called_what_it_is_named(curves: xr.Dataset) -> None:
    named = curves.assign(null=curves["null"].assign_attrs(name="<chance>"))

    assert curve_over_depth(named).data[-1].name == "&lt;chance&gt;"


def test_the_null_is_dashed_and_grey(curves: xr.Dataset) -> None:
    null = curve_over_depth(curves).data[-1]

    assert null.line.dash == "dash"
    np.testing.assert_array_equal(null.y, 0.02)


def test_nulls_of_single_lines_share_one_entry_of_the_legend(curves: xr.Dataset) -> None:
    own = curves.assign(null=curves.value * 0.5)
    nulls = [trace for trace in curve_over_depth(own).data if trace.line.dash == "dash"]

    assert [trace.showlegend for trace in nulls] == [None, False, False]
    assert nulls[0].name == "null"
    assert np.isnan(nulls[0].y).all()
    assert len(nulls[0].x)  # plotly hides the entry of a trace without any points
    np.testing.assert_allclose(nulls[2].y, own.null[1])


def test_a_single_line_over_layers_needs_neither_legend_nor_interval() -> None:
    values = xr.Dataset({"value": ("layer", [1.0, 2.0, 3.0], {"long_name": "norm", "units": "1"})})

    figure = curve_over_depth(values)

    assert len(figure.data) == 1
    assert figure.layout.showlegend is False
    assert figure.layout.xaxis.title.text == "layer"


def test_what_cannot_be_drawn_is_named(curves: xr.Dataset) -> None:
    with pytest.raises(LayerscopeError, match="expected  value"):
        curve_over_depth(curves.drop_vars("value"))
    with pytest.raises(LayerscopeError, match="too many dimensions"):
        curve_over_depth(curves.expand_dims(row=["last"]))


def test_long_names_of_lines_are_wrapped_so_that_a_column_holds_the_legend(curves: xr.Dataset) -> None:
    named = curves.assign_coords(category=["non-English regurgitation − plain-English regurgitation", "b"])
    first = next(trace for trace in curve_over_depth(named).data if trace.name)

    assert first.name == "non-English regurgitation −<br>plain-English regurgitation"


def test_a_logarithmic_height_has_round_ticks(curves: xr.Dataset) -> None:
    axis = curve_over_depth(curves, log=True).layout.yaxis

    assert axis.type == "log"
    assert {"0.5", "20", "1000"} <= set(axis.ticktext)


@pytest.fixture
def rows(curves: xr.Dataset) -> xr.Dataset:
    last = curves.drop_vars("null")
    noised = last.assign(value=1 - last.value, low=1 - last.high, high=1 - last.low)
    both = xr.concat([noised, last], dim="row").assign_coords(row=["noised token", "last token"])
    return both.assign(value=both.value.assign_attrs(curves.value.attrs))


def test_each_category_has_a_panel_with_both_rows(rows: xr.Dataset) -> None:
    figure = rows_by_category(rows)
    lines = [trace for trace in figure.data if trace.hoverinfo != "skip"]

    assert [(line.name, line.xaxis) for line in lines] == [
        ("noised token", "x"), ("last token", "x"), ("noised token", "x2"), ("last token", "x2"),
    ]  # fmt: skip
    np.testing.assert_allclose(lines[2].y, rows.value.sel(row="noised token", category="<b>"))
    assert [line.showlegend for line in lines] == [True, True, False, False]
    assert [note.text for note in figure.layout.annotations] == ["facts", "&lt;b&gt;"]
    assert figure.layout.yaxis2.matches == "y"


def test_a_transition_is_a_line_with_its_interval_and_a_missing_one_is_said(rows: xr.Dataset) -> None:
    numbers = {"value": [2.3, np.nan], "low": [1.9, np.nan], "high": [2.8, np.nan]}
    transitions = xr.Dataset({name: ("category", values) for name, values in numbers.items()})

    figure = rows_by_category(rows, transitions)

    assert [(shape.type, shape.x0, shape.x1, shape.xref) for shape in figure.layout.shapes] == [
        ("rect", 1.9, 2.8, "x"), ("line", 2.3, 2.3, "x"),
    ]  # fmt: skip
    assert "crossover 2.3 [1.9, 2.8]" in figure.layout.annotations[0].text
    assert "no crossover" in figure.layout.annotations[1].text


def test_the_strip_places_a_layer_between_two_depths(curves: xr.Dataset) -> None:
    depth = curves.isel(category=0, drop=True)
    layer = depth.isel(depth=slice(4)).rename(depth="layer")
    panels = [StripRow("one", depth, 4), StripRow("<two>", layer, 4)]

    figure = layers_at_a_glance(panels)
    lines = {trace.xaxis: trace for trace in figure.data if trace.name in ("one", "&lt;two&gt;")}

    np.testing.assert_array_equal(lines["x"].x, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(lines["x2"].x, [0.5, 1.5, 2.5, 3.5])
    assert figure.layout.annotations[1].text.startswith("<b>&lt;two&gt;</b>")


def test_models_of_different_length_meet_on_the_fraction_of_depth(curves: xr.Dataset) -> None:
    depth = curves.isel(category=0, drop=True)

    figure = layers_at_a_glance([StripRow("short", depth, 4), StripRow("long", depth, 8)])
    lines = [trace for trace in figure.data if trace.name in ("short", "long")]

    np.testing.assert_array_equal(lines[0].x, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(lines[1].x, [0, 0.125, 0.25, 0.375, 0.5])


def test_the_strip_tells_null_and_twin_apart_and_says_which_is_which(curves: xr.Dataset) -> None:
    one = curves.isel(category=0, drop=True)

    figure = layers_at_a_glance([StripRow("one", one, 4, twins=[one * 0.5]), StripRow("two", one, 4)])
    null = next(trace for trace in figure.data if trace.name == "null")
    twin = next(trace for trace in figure.data if trace.name == "one, untrained")
    told, alone = (note.text for note in figure.layout.annotations[:2])

    assert (null.line.dash, twin.line.dash) == ("dash", "dot")
    assert null.line.color != twin.line.color
    assert f'color:{null.line.color}">╌╌ null' in told
    assert f'color:{twin.line.color}">••• untrained twin' in told
    assert "null" in alone
    assert "untrained" not in alone
    (narrow,) = layers_at_a_glance([StripRow("one", one, 4, twins=[one])]).layout.annotations
    assert narrow.text.startswith("<b>one</b><br>")

    five = layers_at_a_glance(
        [StripRow("one", one, 4, twins=[one * part for part in (0.1, 0.2, 0.3, 0.4, 0.5)])]
    )
    assert "••• 5 untrained twins" in five.layout.annotations[0].text
    assert sum(trace.name == "one, untrained" for trace in five.data) == 5
    assert len(five.data) == 1 + 1 + 1 + 5  # band, line, null: twins have no bands of their own

    unknown = layers_at_a_glance([StripRow("one", one, 4, twins=[one * np.nan])])  # a twin without an answer
    assert "untrained" not in unknown.layout.annotations[0].text
    assert all("untrained" not in str(trace.name) for trace in unknown.data)


def test_an_empty_strip_is_refused() -> None:
    with pytest.raises(LayerscopeError):
        layers_at_a_glance([])


def test_a_panel_that_spans_powers_of_ten_has_a_log_axis_and_leaves_zero_out() -> None:
    value = xr.DataArray([650.0, 20.0, 2.0, 0.0], dims="depth", coords={"depth": range(4)})
    far = xr.Dataset({"value": value, "low": value * 0.9, "high": value * 1.1}, attrs={"log": 1})
    near = far.drop_attrs()

    figure = layers_at_a_glance([StripRow("far", far, 3, twins=[far]), StripRow("near", near, 3)])

    assert (figure.layout.yaxis.type, figure.layout.yaxis2.type) == ("log", None)
    drawn = [trace for trace in figure.data if trace.yaxis == "y" and len(trace.y)]
    assert all(np.nanmin(np.asarray(trace.y, dtype=float)) > 0 for trace in drawn)
    assert len(drawn) == 4
