"""A run in memory alone: what a run folder keeps, with nothing on disk.

What is read back is what a folder would give: parts pass through the form in which they are saved, and
the result takes the types that netCDF gives back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr

from layerscope.results.netcdf import with_schema
from layerscope.results.parts import put_together, taken_apart
from layerscope.results.record import RunRecord


class RunInMemory:
    """One run, kept as long as this object.

    Args:
        record: what is asked; brought up to date as the run goes on.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self._parts: dict[str, dict[int, tuple[str, list[np.ndarray]]]] = {}
        self._result: xr.Dataset | None = None

    def save_record(self, record: RunRecord) -> None:
        """Keep the record."""
        self.record = record

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nobody else can write here."""
        yield

    def done(self, stage: str) -> set[int]:
        """Indices of the parts of a stage that are kept."""
        return set(self._parts.get(stage, ()))

    def save_part(self, stage: str, index: int, part: xr.Dataset, *, item: str) -> None:
        """Keep what one work item gave."""
        header, values = taken_apart(part, item=item)
        # Copies: values may be a small part of something large, or be written over by whoever gave them.
        self._parts.setdefault(stage, {})[index] = header, [array.copy() for array in values]

    def part(self, stage: str, index: int, *, item: str | None = None) -> xr.Dataset:
        """A kept part; `item` is not compared, since only this run can have put it here."""
        return put_together(*self._parts[stage][index])[0]

    def save_result(self, result: xr.Dataset) -> str:
        """Keep the concluded result; there is no file to have a digest."""
        self._result = _as_read_back(with_schema(result))
        return ""

    def result(self) -> xr.Dataset:
        """The concluded result."""
        if self._result is None:
            raise ValueError("this run has not been concluded")
        return self._result


def _as_read_back(result: xr.Dataset) -> xr.Dataset:
    """The same result with the types that it would have, saved and read."""
    variables = {
        name: xr.Variable(variable.dims, _values(variable.values), _attributes(variable.attrs))
        for name, variable in result.variables.items()
    }
    return xr.Dataset(
        {name: variables[name] for name in result.data_vars},
        coords={name: variables[name] for name in result.coords},
        attrs=_attributes(result.attrs),
    )


def _values(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "UO":  # text becomes as wide as its longest entry
        values = np.array(values.tolist(), dtype=str).reshape(values.shape)
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")).reshape(values.shape)


def _attributes(attributes: dict[Any, Any]) -> dict[Any, Any]:
    numbers = {int: np.int64, float: np.float64}
    return {name: numbers.get(type(value), _same)(value) for name, value in attributes.items()}


def _same(value: Any) -> Any:
    return value
