from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr

from layerscope import experiments
from layerscope.results.schema import quantity
from layerscope.results.store import RunFolder
from report.made_runs import TRIALS, MakeRun, made_layers, made_record, made_result


@pytest.fixture(autouse=True)
def trials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The experiments of trial_experiments/ stand among the others."""
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(TRIALS)])
    yield
    for name in [name for name in sys.modules if name.startswith("layerscope.experiments.trial_")]:
        del sys.modules[name]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(
        name: str = "first", *, result: bool = True, experiment: str = "trial_trace", **asked: object
    ) -> RunFolder:
        inputs: dict[str, Any] = {"prompts": []}
        folder = RunFolder.create(tmp_path / "runs" / name, made_record(experiment, **asked), inputs)
        for index in range(4):
            folder.save_part("trace", index, xr.Dataset({"x": quantity(0.0, "", "nothing")}), item="x")
        if result:
            made = made_layers() if experiment == "trial_layers" else made_result()
            folder.save_result(made.assign_attrs(experiment=experiment))
        return folder

    return make
