"""Whether a name was given by the person at the command, or is read from a record.

A run folder may come from anybody. While a run is resumed or replayed, what its record names may be read from
this machine, but nothing is fetched and no code that comes with weights is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_FROM_A_RECORD: ContextVar[bool] = ContextVar("names come from a record", default=False)


@contextmanager
def names_from_a_record() -> Iterator[None]:
    """Inside, names of models and texts come from a record."""
    token = _FROM_A_RECORD.set(True)
    try:
        yield
    finally:
        _FROM_A_RECORD.reset(token)


def from_a_record() -> bool:
    """Whether names that are looked up now come from a record."""
    return _FROM_A_RECORD.get()
