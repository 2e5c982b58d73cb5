"""One result as one netCDF file, through h5netcdf."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.files import write_atomically
from layerscope.results.schema import SCHEMA, check_promises


def write_result(path: Path, result: xr.Dataset) -> None:
    """Save a result atomically, with a checksum on every block of numbers.

    Raises:
        LayerscopeError: the result breaks a promise of results/schema.py, or cannot be written.
    """
    check_promises(result, where=f"the result of {result.attrs.get('experiment', 'an experiment')}")
    signed = result.assign_attrs(schema=SCHEMA)
    encoding = {
        name: {"fletcher32": True}
        for name, variable in signed.variables.items()
        if variable.dtype.kind in "fiu" and variable.ndim
    }
    write_atomically(path, lambda place: _write(signed, place, encoding))


def _write(result: xr.Dataset, place: Path, encoding: dict[object, dict[str, bool]]) -> None:
    result.to_netcdf(place, engine="h5netcdf", encoding=encoding)


def read_result(path: Path) -> xr.Dataset:
    """A saved result, whole in memory.

    Raises:
        LayerscopeError: no such file, a damaged one, or one of a newer schema.
    """
    if not path.is_file():
        raise LayerscopeError(
            "there is no saved result",
            found=path,
            expected="result.nc",
            hint=f"layerscope resume {path.parent}",
        )
    try:
        with xr.open_dataset(path, engine="h5netcdf") as file:
            result = file.load()
    except (OSError, ValueError, KeyError) as error:
        raise LayerscopeError(
            "a saved result is damaged",
            found=f"{path}: {error}",
            expected="result.nc as Layerscope wrote it",
            hint=f"delete that file, then: layerscope resume {path.parent}   (the parts are kept)",
        ) from error
    refuse_newer(int(result.attrs.get("schema", 0)), path)
    return result


def refuse_newer(schema: int, path: Path) -> None:
    """Refuse what a newer Layerscope wrote: guessing at its meaning would be worse than stopping."""
    if schema > SCHEMA:
        raise LayerscopeError(
            "this run was written by a newer Layerscope",
            found=f"schema {schema} in {path}",
            expected=f"schema {SCHEMA} or older",
            hint="pip install --upgrade layerscope",
        )
