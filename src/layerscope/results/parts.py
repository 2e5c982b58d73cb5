"""One part: the Dataset that one work item gave, as one .npz file.

Parts are many and small, so they are .npz (a tenth of netCDF's cost) with the names and
dimensions in a JSON header. A sha256 of all of it stands behind the archive (which readers of .npz
pass over): a part that was cut short or altered is noticed when it is read, never used.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.files import readable, typed, write_bytes
from layerscope.results.schema import SCHEMA

_HEADER = "header"
_DIGEST = hashlib.sha256().digest_size


def write_part(path: Path, dataset: xr.Dataset, *, item: str) -> None:
    """Write one part atomically.

    Args:
        path: where it goes, ending in .npz.
        dataset: numbers, bools and text; its attributes must fit into JSON.
        item: digest of the work item that it answers.
    """
    header, values = taken_apart(dataset, item=item)
    arrays = {f"v{i}": array for i, array in enumerate(values)}
    arrays[_HEADER] = np.frombuffer(header.encode(), dtype=np.uint8)
    archive = io.BytesIO()
    np.savez(archive, **arrays)  # type: ignore[arg-type]
    content = archive.getvalue()
    write_bytes(path, content + hashlib.sha256(content).digest())


def taken_apart(dataset: xr.Dataset, *, item: str) -> tuple[str, list[np.ndarray]]:
    """A part as it is kept, on disk or in memory: a JSON header, and the values of each variable in it."""
    header = {
        "schema": SCHEMA,
        "item": item,
        "attributes": dataset.attrs,
        "variables": [_describe(dataset, str(name)) for name in dataset.variables],
    }
    return json.dumps(header), [variable.values for variable in dataset.variables.values()]


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
        LayerscopeError: the file cannot be read, or is damaged (cut short, altered, or not a part).
    """
    with readable(path):
        content = path.read_bytes()
    try:
        with np.load(io.BytesIO(_undamaged(content)), allow_pickle=False) as file:
            header = bytes(file[_HEADER]).decode()
            arrays = [file[f"v{i}"] for i in range(len(file.files) - 1)]
        return put_together(header, arrays)
    except (OSError, LookupError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise LayerscopeError(
            "a part of this run is damaged",
            found=f"{path}: {error}",
            expected="a part as Layerscope wrote it",
            hint=f"delete that one file, then: layerscope resume {typed(path.parents[2])}  (it alone is measured)",
        ) from error


def _undamaged(content: bytes) -> bytes:
    archive, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(archive).digest() != digest:
        raise ValueError("its bytes are not those that were written")
    return archive


def put_together(header: str, arrays: Sequence[np.ndarray]) -> tuple[xr.Dataset, str]:
    """The Dataset of a part that was taken apart, and the digest of its work item."""
    content = json.loads(header)
    variables: dict[bool, dict[str, xr.Variable]] = {True: {}, False: {}}
    for entry, array in zip(content["variables"], arrays, strict=True):
        variables[entry["coordinate"]][entry["name"]] = xr.Variable(entry["dims"], array, entry["attributes"])
    dataset = xr.Dataset(variables[False], coords=variables[True], attrs=content["attributes"])
    return dataset, content["item"]
