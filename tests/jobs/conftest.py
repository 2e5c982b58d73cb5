from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from layerscope.jobs import running
from layerscope.jobs.prepare import Job
from layerscope.jobs.progress import Silent
from layerscope.results.store import runs_below

HERE = Path(__file__).parent


@pytest.fixture
def state_mean(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The experiment of two stages stands among the others."""
    from layerscope import experiments

    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(HERE / "experiments")])
    yield "state_mean"
    sys.modules.pop("layerscope.experiments.state_mean", None)


def assert_same_bits(a: xr.Dataset, b: xr.Dataset) -> None:
    assert set(a.variables) == set(b.variables)
    for name in a.variables:
        assert a[name].dims == b[name].dims
        assert a[name].dtype == b[name].dtype, name
        if a[name].dtype.kind in "OU":
            np.testing.assert_array_equal(a[name].values, b[name].values)
        else:
            assert a[name].values.tobytes() == b[name].values.tobytes(), name


class Counting(Silent):
    """Counts the items that are computed."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.items: list[str] = []
        self._left = stop_after

    def finished(self, name: str, size: float) -> None:
        self.items.append(name)
        if len(self.items) == self._left:
            raise KeyboardInterrupt


def items_left_after(job: Job, folder: Path, stop: int) -> int:
    """Stop a run after so many items and resume it: it must end in the bits of a run that nobody stopped.

    Returns:
        How many items the resumed run computed.
    """
    with pytest.raises(KeyboardInterrupt):
        running.run(job, folder / "stopped", Counting(stop_after=stop))
    (stopped,) = runs_below(folder / "stopped")
    rest = Counting()
    running.resume(stopped.path, rest, model=job.model)
    assert_same_bits(stopped.result(), running.run(job, folder / "calm", Silent()).result())
    return len(rest.items)
