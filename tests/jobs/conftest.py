from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

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
