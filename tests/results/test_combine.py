from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from layerscope.results.combine import concatenate
from layerscope.results.schema import quantity


def piece(name: str, tokens: int, depth: int = 2) -> xr.Dataset:
    return xr.Dataset(
        {
            "value": quantity(np.full((tokens, depth), ord(name)), "token depth", "value"),
            "score": quantity([ord(name)], "prompt", "score"),
            "unit": quantity(np.arange(depth), "depth", "unit"),
        },
        coords={"prompt": ("prompt", [name]), "whose": ("token", [name] * tokens), "depth": range(depth)},
    )


def test_ragged_parts_lie_one_after_another_in_the_order_given() -> None:
    whole = concatenate([piece("b", 3), piece("a", 0), piece("c", 1)])

    assert list(whole.whose.values) == ["b", "b", "b", "c"]
    assert list(whole.prompt.values) == ["b", "a", "c"]
    assert list(whole.value.values[:, 0]) == [98, 98, 98, 99]
    assert list(whole.unit.values) == [0, 1]


def test_texts_of_any_length_stay_whole() -> None:
    whole = concatenate(
        [piece("a", 1), piece("longer"[:1] * 1, 1).assign_coords(prompt=["a much longer name"])]
    )

    assert list(whole.prompt.values) == ["a", "a much longer name"]


def test_parts_that_disagree_about_what_does_not_grow_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="differs between parts"):
        concatenate([piece("a", 1), piece("b", 1).assign(unit=quantity([0, 2], "depth", "unit"))])


def test_empty_cells_do_not_count_as_disagreement() -> None:
    parts = [xr.Dataset({"x": quantity([np.nan, 1.0], "depth", "x")}) for _ in range(2)]

    assert concatenate(parts).x.values[1] == 1


def test_a_variable_may_grow_along_one_dimension_only() -> None:
    with pytest.raises(ValueError, match="one dimension only"):
        concatenate([xr.Dataset({"x": quantity(np.zeros((1, 1)), "prompt token", "x")})] * 2)
