"""One part: the Dataset that one work item gave, as one .npz file.

Parts are many and small, so they are .npz (a tenth of netCDF's cost) with the names and
dimensions in a JSON header. The zip format carries a checksum of every array: a part that was
cut short or altered is noticed when it is read, never used.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.files import write_atomically
from layerscope.results.schema import SCHEMA

_HEADER = "header"


def write_part(path: Path, dataset: xr.Dataset, *, item: str) -> None:
    """Write one part atomically.

    Args:
        path: where it goes, ending in .npz.
        dataset: numbers, bools and text; its attributes must fit into JSON.
        item: digest of the work item that it answers.
    """
    arrays = {f"v{i}": variable.values for i, variable in enumerate(dataset.variables.values())}
    header = {
        "schema": SCHEMA,
        "item": item,
        "attributes": dataset.attrs,
        "variables": [_describe(dataset, str(name)) for name in dataset.variables],
    }
    arrays[_HEADER] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)

    def write(place: Path) -> None:
        with place.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    write_atomically(path, write)


def _describe(dataset: xr.Dataset, name: str) -> dict[str, Any]:
    variable = dataset.variables[name]
    if variable.dtype.hasobject:
        raise TypeError(f"{name} holds Python objects; parts hold numbers, bools and text")
    return {
        "name": name,
        "dims": list(variable.dims),
        "attributes": variable.attrs,
        "coordinate": name in dataset.coords,
    }


def read_part(path: Path) -> tuple[xr.Dataset, str]:
    """The Dataset of a part, and the digest of its work item.

    Raises:
        LayerscopeError: the file is damaged (cut short, altered, or not a part).
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(bytes(file[_HEADER]))
            arrays = [file[f"v{i}"] for i in range(len(header["variables"]))]
        return _rebuilt(header, arrays), header["item"]
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, NotImplementedError) as error:
        raise LayerscopeError(
            "a part of this run is damaged",
            found=f"{path}: {type(error).__name__}",
            expected="a part as Layerscope wrote it",
            hint=f"delete that one file, then: layerscope resume {path.parents[2]}   (only it is computed again)",
        ) from error


def _rebuilt(header: dict[str, Any], arrays: list[np.ndarray]) -> xr.Dataset:
    variables: dict[bool, dict[str, xr.Variable]] = {True: {}, False: {}}
    for entry, array in zip(header["variables"], arrays, strict=True):
        variables[entry["coordinate"]][entry["name"]] = xr.Variable(entry["dims"], array, entry["attributes"])
    return xr.Dataset(variables[False], coords=variables[True], attrs=header["attributes"])
