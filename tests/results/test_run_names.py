"""A run is found by its name, or by a beginning that only its name has."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.run_names import run_named, runs_meant

NAMES = ("causal_trace-a-01", "causal_trace-b-02", "logit_lens-a-03", "logit_lens-a-031", "gpt2/syntax-c-04")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in NAMES:
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    (tmp_path / "runs" / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_a_path_means_itself(runs: Path) -> None:
    assert run_named(runs / "logit_lens-a-03", Path("elsewhere")) == runs / "logit_lens-a-03"
    assert run_named(Path("runs")) == Path("runs")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("logit_lens-a-03", "logit_lens-a-03"),  # whole, though another begins so
        ("causal_trace-b", "causal_trace-b-02"),
        ("syntax", "gpt2/syntax-c-04"),  # at any depth
        ("gpt2", "gpt2"),  # a folder of runs
        ("gpt2/syntax-c-04", "gpt2/syntax-c-04"),
    ],
)
def test_a_name_means_the_run_below(runs: Path, given: str, meant: str) -> None:
    assert run_named(Path(given)) == Path("runs") / meant
    assert run_named(Path(given), runs) == runs / meant


def test_several_are_listed_and_one_of_them_is_tried(runs: Path) -> None:
    with pytest.raises(LayerscopeError, match="several runs begin so") as several:
        run_named(Path("causal"), runs)

    assert "causal_trace-a-01, causal_trace-b-02" in str(several.value)
    assert run_named(Path(several.value.hint), runs) == runs / "causal_trace-b-02"


@pytest.mark.parametrize("given", ["nothing", "not/there", "x" * 300])
def test_none_is_told_with_what_was_looked_for_and_where(runs: Path, given: str) -> None:
    with pytest.raises(LayerscopeError, match="not a run folder, and no run's name begins so") as none:
        run_named(Path(given), runs)
    with pytest.raises(LayerscopeError, match="in nowhere: no such folder"):
        run_named(Path(given), Path("nowhere"))

    assert given in str(none.value)
    assert f"in {runs}: none of causal_trace-a-01" in str(none.value)


def test_a_folder_above_runs_stands_for_all_of_them(runs: Path) -> None:
    assert {run.path.name for run in runs_meant("runs")} == {Path(name).name for name in NAMES}
    assert [run.path.name for run in runs_meant(["causal_trace-a", "gpt2"])] == [
        "causal_trace-a-01",
        "syntax-c-04",
    ]
    with pytest.raises(LayerscopeError, match="only saved runs"):
        runs_meant(xr.Dataset({"x": 1.0}))
    with pytest.raises(LayerscopeError, match="not a run folder"):
        runs_meant(runs / "notes")
