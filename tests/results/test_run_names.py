"""A run is found by its name, or by a beginning that only its name has."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerscope.errors import LayerscopeError
from layerscope.results.run_names import run_named


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("causal_trace-a-01", "causal_trace-b-02", "logit_lens-a-03", "logit_lens-a-031"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    (tmp_path / "runs" / "notes").mkdir()
    return tmp_path / "runs"


def test_a_path_means_itself_and_a_name_the_run_below(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.parent)

    assert run_named(runs / "logit_lens-a-03", Path("elsewhere")) == runs / "logit_lens-a-03"
    assert (
        run_named(Path("logit_lens-a-03"), runs) == runs / "logit_lens-a-03"
    )  # whole, though another begins so
    assert run_named(Path("causal_trace-b"), runs) == runs / "causal_trace-b-02"
    assert run_named(Path("runs"), runs) == Path("runs")
    assert run_named(Path("not/there"), runs) == Path("not/there")  # refused by whoever opens it


def test_several_and_none_are_refused_with_what_was_looked_for_and_where(runs: Path) -> None:
    with pytest.raises(LayerscopeError, match="several runs begin so") as several:
        run_named(Path("causal"), runs)
    with pytest.raises(LayerscopeError, match="no such run") as none:
        run_named(Path("notes"), runs)
    assert run_named(Path("causal"), runs / "nowhere") == Path("causal")  # refused by whoever opens it

    assert "causal_trace-a-01, causal_trace-b-02" in str(several.value)
    assert str(runs) in str(none.value)
