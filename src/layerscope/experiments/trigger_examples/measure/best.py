"""The best places of many units, kept in memory of fixed size while a corpus goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from layerscope.maths.top_contexts import best_places

_FEWEST_WAITING = 1024
_WHERE = ("unit", "value", "text", "position", "alike")
_WINDOWS = ("along", "ids")


class Best:
    """For each unit its `most` best places, best first, and the last tokens before each.

    Places wait until as many have come as are kept, and are then sorted together: sorting costs a place a
    fixed number of comparisons, however many passes the places come from. Until then `threshold` is that of
    the last sorting, which lets a few more places wait and no place be lost.

    Attributes:
        threshold: by unit, the value of the lowest place kept; 0 while there are fewer than `most`.
    """

    def __init__(self, n_units: int, most: int, window: int) -> None:
        self.n_units, self.most = n_units, most
        self.threshold = np.zeros(n_units, dtype=np.float32)
        self._rank = np.empty(0, dtype=np.int64)
        self._columns: dict[str, np.ndarray] = {
            "unit": np.empty(0, dtype=np.int64),
            "value": np.empty(0, dtype=np.float32),
            "text": np.empty(0, dtype=np.int64),
            "position": np.empty(0, dtype=np.int64),
            "alike": np.empty(0, dtype=np.uint64),
            "along": np.empty((0, window), dtype=np.float32),
            "ids": np.empty((0, window), dtype=np.int64),
        }
        self._waiting: list[Mapping[str, np.ndarray]] = []

    def add(self, found: Mapping[str, np.ndarray]) -> None:
        """Take places in: for each its unit, value, text, position, alike, along and ids."""
        if len(found["unit"]):
            self._waiting.append(found)
        if sum(len(some["unit"]) for some in self._waiting) >= max(_FEWEST_WAITING, self.n_units * self.most):
            self.settle()

    def settle(self) -> None:
        """Sort what waits in among what is kept."""
        if not self._waiting:
            return
        pieces = [self._columns, *self._waiting]
        self._waiting = []
        columns = {name: np.concatenate([piece[name] for piece in pieces]) for name in self._columns}
        kept, self._rank = best_places(*(columns[name] for name in _WHERE), most=self.most)
        self._columns = {name: column[kept] for name, column in columns.items()}
        full = self._rank == self.most - 1
        self.threshold[self._columns["unit"][full]] = self._columns["value"][full]

    def number_kept(self) -> np.ndarray:
        """How many places each unit has."""
        return np.bincount(self._columns["unit"], minlength=self.n_units)

    def table(self, name: str, missing: Any) -> np.ndarray:
        """One column as [unit rank ...], of what was settled."""
        column = self._columns[name]
        table = np.full((self.n_units, self.most, *column.shape[1:]), missing, dtype=column.dtype)
        table[self._columns["unit"], self._rank] = column
        return table


def merged_tables(
    a: xr.Dataset, b: xr.Dataset, names: Mapping[str, str], windows: Sequence[str], n_units: int, most: int
) -> dict[str, np.ndarray]:
    """The best of two tables of best places.

    Args:
        a, b: Datasets that hold the tables.
        names: by role (value, text, position, alike), the variable [unit rank] that plays it.
        windows: variables [unit rank place].
        n_units: of both.
        most: ranks of both.

    Returns:
        The tables of the best, by variable.
    """

    def flat(name: str) -> np.ndarray:
        both = [one[name].values.reshape(n_units, most, -1) for one in (a, b)]
        joined = np.concatenate(both, axis=1)
        return joined.reshape(n_units * 2 * most, joined.shape[2])

    columns = {role: flat(name)[:, 0] for role, name in names.items()}
    there = np.flatnonzero(columns["text"] >= 0)
    unit = np.repeat(np.arange(n_units), 2 * most)[there]
    kept, rank = best_places(unit, *(columns[role][there] for role in names), most=most)
    tables = {}
    for name in (*names.values(), *windows):
        source = flat(name)
        missing = np.nan if source.dtype.kind == "f" else (0 if source.dtype.kind == "u" else -1)
        table = np.full((n_units, most, source.shape[1]), missing, dtype=source.dtype)
        table[unit[kept], rank] = source[there[kept]]
        tables[name] = table if name in windows else table[..., 0]
    return tables
