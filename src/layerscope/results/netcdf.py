"""One result as one netCDF file, through h5netcdf."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.files import readable, typed, write_bytes
from layerscope.results.schema import SCHEMA, check_promises


def write_result(path: Path, result: xr.Dataset) -> str:
    """Save a result atomically, with a checksum on every block of numbers.

    Returns:
        sha256 of the file, which also covers text and names.

    Raises:
        LayerscopeError: the result breaks a promise of results/schema.py, or cannot be written.
    """
    signed = with_schema(result)
    encoding = {
        name: {"fletcher32": True}
        for name, variable in signed.variables.items()
        if variable.dtype.kind in "fiub" and variable.ndim
    }
    # Made in memory: on a full disk, HDF5 writing a file itself ends the whole process (seen with 1.14).
    content = memoryview(signed.to_netcdf(None, engine="h5netcdf", encoding=encoding))
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def with_schema(result: xr.Dataset) -> xr.Dataset:
    """A result that keeps its promises, with the number of the schema that says how it is read."""
    check_promises(result, where=f"the result of {result.attrs.get('experiment', 'an experiment')}")
    return result.assign_attrs(schema=SCHEMA)


def read_result(path: Path, *, digest: str | None = None) -> xr.Dataset:
    """A saved result, whole in memory.

    Args:
        path: the netCDF file.
        digest: what `write_result` returned; without it, damage to text may go unnoticed.

    Raises:
        LayerscopeError: no such file, a damaged one, or one of a newer schema.
    """
    if not path.is_file():
        raise LayerscopeError(
            "there is no saved result",
            found=path,
            expected="result.nc",
            hint=f"layerscope resume {typed(path.parent)}",
        )
    with readable(path):
        content = path.read_bytes()
    try:
        if digest is not None and hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("its bytes are not those that were written")
        with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as file:
            result = file.load()
        schema = int(result.attrs.get("schema", 0))
    except Exception as error:
        # HDF5 and xarray answer a damaged file with nearly any kind of exception.
        raise LayerscopeError(
            "a saved result is damaged",
            found=f"{path}: {(str(error).splitlines() or [type(error).__name__])[0]}",
            expected="result.nc as Layerscope wrote it",
            hint=f"delete that file, then: layerscope resume {typed(path.parent)}   (the parts are kept)",
        ) from error
    refuse_newer(schema, path)
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
