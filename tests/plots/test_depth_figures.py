"""Squares of depth against depth, and curves with phases."""

import numpy as np
import pytest
import xarray as xr

from layerscope import LayerscopeError
from layerscope.plots import curves_with_phases, depth_pairs


def squares(names: list[str]) -> xr.DataArray:
    values = np.linspace(-1, 1, len(names) * 9).reshape(len(names), 3, 3)
    values[0, 0, 0] = np.nan
    coords = {"row": names, "depth": range(3), "other_depth": range(3)}
    return xr.DataArray(
        values, dims=("row", "depth", "other_depth"), coords=coords, attrs={"long_name": "likeness"}
    )


def test_a_square_for_each_way_of_comparing() -> None:
    figure = depth_pairs(squares(["cosine", "<b>alignment</b>"]))

    assert len(figure.data) == 2
    assert figure.data[0].z[0][0] is None
    assert figure.data[1].z[2][2] == 1
    assert [note.text for note in figure.layout.annotations] == ["cosine", "&lt;b&gt;alignment&lt;/b&gt;"]
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(LayerscopeError, match="pairs of depths"):
        depth_pairs(squares(["a"]).isel(row=0))


def test_a_line_stands_before_the_layer_at_which_a_phase_begins() -> None:
    curves = xr.Dataset(
        {"value": (("curve", "layer"), np.zeros((2, 6)), {"long_name": "height", "units": "SD"})},
        coords={"curve": ["a", "b"], "layer": range(6)},
    )
    begins = xr.Dataset(
        {name: ("change", [at]) for name, at in (("value", 4.0), ("low", 3.0), ("high", 5.0))}
    )

    shapes = curves_with_phases(curves, begins).layout.shapes

    assert [shape.x0 for shape in shapes if shape.type == "line"] == [3.5]
    assert [(shape.x0, round(shape.x1, 3)) for shape in shapes if shape.type == "rect"] == [(2.5, 4.5)]
