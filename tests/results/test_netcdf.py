from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.netcdf import read_result, write_result
from layerscope.results.schema import SCHEMA, quantity


@pytest.fixture
def result() -> xr.Dataset:
    return xr.Dataset(
        {
            "value": quantity(np.arange(300.0).reshape(100, 3), "token depth", "value"),
            "flag": quantity([True, False], "prompt", "flag"),
            "none": quantity(np.zeros((0, 3), np.float32), "passage depth", "none"),
            "text": quantity(["&lt;", "\u202e 日本 🙂"], "prompt", "text"),
            "single": quantity(np.nan, "", "single"),
        },
        attrs={"experiment": "made_up"},
    )


def test_a_result_comes_back_with_its_schema(tmp_path: Path, result: xr.Dataset) -> None:
    digest = write_result(tmp_path / "result.nc", result)

    again = read_result(tmp_path / "result.nc", digest=digest)

    xr.testing.assert_identical(again, result.assign_attrs(schema=SCHEMA))
    assert again.flag.dtype == bool


def test_nothing_is_written_that_breaks_a_promise(tmp_path: Path) -> None:
    with pytest.raises(LayerscopeError, match="made_up"):
        write_result(
            tmp_path / "result.nc", xr.Dataset({"x": ("depth", [1])}, attrs={"experiment": "made_up"})
        )

    assert not list(tmp_path.iterdir())


def test_damaged_numbers_are_noticed_by_the_files_own_checksum(tmp_path: Path, result: xr.Dataset) -> None:
    path = tmp_path / "result.nc"
    write_result(path, result)
    whole = path.read_bytes()
    place = whole.index(np.float64(123.0).tobytes())
    path.write_bytes(whole[: place + 2] + b"\x01" + whole[place + 3 :])

    with pytest.raises(LayerscopeError, match=r"result\.nc") as caught:
        read_result(path)
    assert "delete that file" in caught.value.hint


def test_with_the_recorded_digest_no_flipped_byte_goes_unnoticed(tmp_path: Path, result: xr.Dataset) -> None:
    path = tmp_path / "result.nc"
    digest = write_result(path, result)
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(LayerscopeError, match=r"result\.nc"):
            read_result(path, digest=digest)


@pytest.mark.parametrize("content", [b"", b"not netCDF", b"\x89HDF\r\n\x1a\n"])
def test_what_is_no_result_is_called_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "result.nc").write_bytes(content)

    with pytest.raises(LayerscopeError, match="damaged"):
        read_result(tmp_path / "result.nc")


def test_a_result_of_a_newer_schema_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr("layerscope.results.netcdf.SCHEMA", SCHEMA + 1)
        write_result(tmp_path / "result.nc", result)

    with pytest.raises(LayerscopeError, match="newer Layerscope") as caught:
        read_result(tmp_path / "result.nc")
    assert "upgrade" in caught.value.hint


def test_a_missing_result_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(LayerscopeError, match="no saved result") as caught:
        read_result(tmp_path / "result.nc")
    assert caught.value.hint == f"layerscope resume {tmp_path}"
