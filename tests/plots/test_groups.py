from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.plots import differences, distribution

VALUES = xr.DataArray(
    [3.0, 5.0, np.nan, 4.0],
    dims="prompt",
    coords={"prompt": ["p", "<b>q</b>", "r", "s"]},
    attrs={"long_name": "transition layer", "units": "block"},
)
GROUPS = ["facts", "<i>", "facts", "facts"]


def test_every_known_value_is_a_point_named_on_hover() -> None:
    figure = distribution(VALUES, GROUPS)
    facts, other = figure.data

    np.testing.assert_array_equal(facts.x, [3.0, 4.0])
    assert np.all(np.abs(np.asarray(facts.y)) < 0.5)
    assert list(other.customdata) == ["&lt;b&gt;q&lt;/b&gt;"]
    assert figure.layout.yaxis.ticktext == ("facts<br>n = 2", "&lt;i&gt;<br>n = 1")
    assert figure.layout.xaxis.title.text == "transition layer [block]"
    assert figure.layout.meta["caption"] == "1 of 4 has no value and is not drawn."
    assert figure == distribution(VALUES, GROUPS)


def test_means_are_drawn_as_given() -> None:
    numbers = {"value": [9.0, 3.5], "low": [8.0, 3.0], "high": [11.0, 4.5]}
    means = xr.Dataset(
        {name: ("category", values) for name, values in numbers.items()},
        coords={"category": ["<i>", "facts"]},
    )
    mean = distribution(VALUES, GROUPS, means).data[1]

    assert (mean.x, mean.error_x.array, mean.error_x.arrayminus) == ((3.5,), (1.0,), (0.5,))
    assert mean.customdata == ("mean 3.5 [3.0, 4.5]",)


def test_a_group_too_many_is_named() -> None:
    with pytest.raises(LayerscopeError, match="3 groups"):
        distribution(VALUES, GROUPS[:3])


CONTRASTS = xr.Dataset(
    {
        "difference": ("contrast", [2.0, -0.5], {"long_name": "difference", "units": "block"}),
        "low": ("contrast", [1.0, -1.5]),
        "high": ("contrast", [2.5, 0.5]),
        "p_adjusted": ("contrast", [0.0002, 0.3]),
    },
    coords={"contrast": ["a − <b>", "a − c"]},
)


def test_pairs_that_cannot_be_told_apart_are_grey_and_say_so() -> None:
    figure = differences(CONTRASTS)
    clear, unclear = figure.data

    assert (list(clear.x), list(clear.y), list(clear.error_x.array)) == ([2.0], [0], [0.5])
    assert (list(unclear.x), list(unclear.y), list(unclear.error_x.arrayminus)) == ([-0.5], [1], [1.0])
    assert unclear.marker.color != clear.marker.color
    assert [note.text for note in figure.layout.annotations] == [
        "a − &lt;b&gt; (p\u00a0&lt;\u00a00.001)",
        "a − c (p\u00a0=\u00a00.3,\u00a0not\u00a0significant)",
    ]
    assert figure.layout.shapes[0].x0 == 0


def test_a_verdict_that_is_given_decides() -> None:
    figure = differences(CONTRASTS.assign(significant=("contrast", [False, False])))

    assert len(figure.data[0].x) == 0


def test_what_is_missing_is_named() -> None:
    with pytest.raises(LayerscopeError, match="no p_adjusted"):
        differences(CONTRASTS.drop_vars("p_adjusted"))
