from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.schema import check_promises, quantity, read_json, write_json

GOOD = xr.Dataset({"x": quantity([1.0], "depth", "x")})


def test_a_result_that_keeps_its_promises_passes_unchanged() -> None:
    assert check_promises(GOOD, where="here") is GOOD


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (xr.Dataset({"x": ("depth", [1.0])}), "x without long_name"),
        (xr.Dataset({"x": ("depth", [1.0], {"long_name": "x"})}), "x without units"),
        (xr.Dataset({"x": quantity([1.0], "mystery", "x")}), "dimension mystery"),
        (GOOD.assign_attrs(flag=True), "flag of type bool"),
        (GOOD.assign_attrs(none=None), "none of type NoneType"),
        (GOOD.assign_attrs(many={"a": 1}), "many of type dict"),
        (GOOD.assign(x=GOOD.x.assign_attrs(list=[1])), "list of type list"),
    ],
)
def test_a_broken_promise_is_named(broken: xr.Dataset, found: str) -> None:
    with pytest.raises(LayerscopeError, match="here breaks a promise") as caught:
        check_promises(broken, where="here")

    assert found in str(caught.value.found)


def test_a_new_dimension_is_welcome_if_it_says_what_it_means() -> None:
    data = xr.Dataset(
        {"x": quantity([1.0], "distance", "x")},
        coords={"distance": xr.Variable("distance", [1], {"long_name": "distance [tokens]"})},
    )

    assert check_promises(data, where="here") is data


def test_rows_of_a_dimension_of_ones_own_may_be_told_by_a_coordinate_along_it_alone() -> None:
    whose = {"screened_prompt": xr.Variable("screened", ["p"], {"long_name": "prompt of the patch"})}
    data = xr.Dataset({"x": quantity([[1.0]], "screened depth", "x")})

    assert check_promises(data.assign_coords(whose), where="here")
    for useless in (
        {"name": ("screened", ["p"])},
        {"at": (("screened", "depth"), [[1]], {"long_name": "at"})},
    ):
        with pytest.raises(LayerscopeError, match="dimension screened"):
            check_promises(data.assign_coords(useless), where="here")


def test_lists_and_none_travel_as_json() -> None:
    written = check_promises(write_json(GOOD, many=[1, None, {"a": "é"}]), where="here")

    assert read_json(written, "many") == [1, None, {"a": "é"}]
    assert read_json(written, "absent", default=[]) == []


def test_a_quantity_takes_dimensions_as_words() -> None:
    assert quantity(np.zeros((1, 2)), "token depth", "x", "nat").attrs == {"long_name": "x", "units": "nat"}
