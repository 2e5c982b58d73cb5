from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from layerscope.errors import LayerscopeError
from layerscope.results.parts import read_part, write_part
from layerscope.results.schema import quantity


@pytest.fixture
def part() -> xr.Dataset:
    return xr.Dataset(
        {
            "value": quantity(np.array([[1.5, np.nan], [-0.0, np.inf]], np.float32), "token depth", "value"),
            "flag": quantity([True, False], "token", "flag"),
            "text": quantity(["", "日本 🙂"], "token", "text"),
            "none": quantity(np.zeros((0, 2)), "prompt depth", "none"),
            "single": quantity(np.float64(3.25), "", "single"),
        },
        coords={
            "depth": xr.Variable("depth", [0, 1], {"long_name": "depth"}),
            "whose": ("token", ["a", "b"]),
        },
        attrs={"note": "x", "n": 3},
    )


def test_a_part_comes_back_as_it_was(tmp_path: Path, part: xr.Dataset) -> None:
    write_part(tmp_path / "0.npz", part, item="abc")

    again, item = read_part(tmp_path / "0.npz")

    xr.testing.assert_identical(again, part)
    assert item == "abc"
    assert {name: v.dtype for name, v in again.variables.items()} == {
        name: v.dtype for name, v in part.variables.items()
    }


@given(hnp.arrays(st.sampled_from(["f2", "f4", "f8", "i1", "i8", "u2", "?"]), hnp.array_shapes(min_dims=0)))
def test_arrays_of_any_kind_keep_every_bit(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray
) -> None:
    path = tmp_path_factory.mktemp("part") / "0.npz"
    dims = [f"d{i}" for i in range(values.ndim)]

    write_part(path, xr.Dataset({"x": quantity(values, dims, "x")}), item="")

    assert read_part(path)[0].x.values.tobytes() == values.tobytes()


def test_writing_twice_gives_the_same_bytes(tmp_path: Path, part: xr.Dataset) -> None:
    for name in ("a.npz", "b.npz"):
        write_part(tmp_path / name, part, item="abc")

    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_numpy_alone_can_read_a_part(tmp_path: Path, part: xr.Dataset) -> None:
    write_part(tmp_path / "0.npz", part, item="abc")

    with np.load(io.BytesIO((tmp_path / "0.npz").read_bytes()), allow_pickle=False) as file:
        assert any(
            np.array_equal(file[name], part.value.values, equal_nan=True) for name in ("v0", "v1", "v2")
        )


def test_a_flipped_byte_anywhere_is_noticed_and_the_file_named(tmp_path: Path, part: xr.Dataset) -> None:
    path = tmp_path / "parts" / "trace" / "000000.npz"
    path.parent.mkdir(parents=True)
    write_part(path, part, item="abc")
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(LayerscopeError, match=r"000000\.npz"):
            read_part(path)


@pytest.mark.parametrize("left", [0, 1, 31, 33, 500, -1])
def test_a_part_cut_short_is_noticed_and_what_to_do_is_said(
    tmp_path: Path, part: xr.Dataset, left: int
) -> None:
    path = tmp_path / "parts" / "trace" / "000000.npz"
    path.parent.mkdir(parents=True)
    write_part(path, part, item="abc")
    path.write_bytes(path.read_bytes()[:left])

    with pytest.raises(LayerscopeError) as caught:
        read_part(path)

    assert "delete that one file" in caught.value.hint
    assert str(tmp_path) in caught.value.hint


def test_python_objects_are_an_experiments_mistake(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="objects"):
        write_part(tmp_path / "0.npz", xr.Dataset({"x": ("token", np.array([None, 1]))}), item="")
    assert not list(tmp_path.iterdir())
