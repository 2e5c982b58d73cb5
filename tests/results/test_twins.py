"""Which runs are the untrained twins of a run, and what ships of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from layerscope.results import shipped_twins
from layerscope.results.record import RunRecord
from layerscope.results.schema import quantity
from layerscope.results.shipped_twins import read_twins, shipped_path, write_twins
from layerscope.results.store import RunFolder
from layerscope.results.twins import twin_runs_of, twins_of
from results.test_store import new_record


def record(*, code: str = "c", layers: int = 4, **asked: object) -> RunRecord:
    new = new_record()
    new.asked = new.asked.model_copy(update=asked)
    new.machine = new.machine.model_copy(update={"code": code})
    new.facts = {"n_layers": layers}
    return new


def made(path: Path, about: RunRecord, value: float, *, state: str = "complete") -> RunFolder:
    run = RunFolder.create(path, about, {})
    result = xr.Dataset({"x": quantity(np.full(3, value), "depth", "x")}, attrs={"experiment": "made_up"})
    about.result, about.state = run.save_result(result), state  # type: ignore[assignment]
    run.save_record(about)
    return run


@pytest.fixture
def own(tmp_path: Path) -> RunFolder:
    run = made(tmp_path / "own", record(), 9.0)
    made(tmp_path / "b", record(untrained=2, weights="b"), 2.0)
    made(tmp_path / "a", record(untrained=1, weights="a"), 1.0)
    return run


def test_twins_are_the_runs_beside_it_that_were_asked_the_same_by_seed(own: RunFolder) -> None:
    twins = twins_of(own)

    assert list(twins) == [1, 2]
    assert [float(twin.x[0]) for twin in twins.values()] == [1.0, 2.0]


def test_a_twin_s_twins_are_the_others(own: RunFolder) -> None:
    assert list(twins_of(RunFolder(own.path.parent / "a"))) == [2]


@pytest.mark.parametrize(
    "about",
    [
        record(untrained=3, settings={"samples": 3}),
        record(untrained=3, texts="y"),
        record(untrained=3, experiment="another"),
        record(untrained=3, code="d"),
        record(untrained=3, layers=5),
        record(weights="e"),
    ],
    ids=["settings", "texts", "experiment", "code", "layers", "a trained model"],
)
def test_what_was_asked_or_answered_otherwise_is_no_twin(own: RunFolder, about: RunRecord) -> None:
    made(own.path.parent / "c", about, 3.0)

    assert list(twins_of(own)) == [1, 2]


def test_only_complete_twins_that_can_be_read_are_witnesses(own: RunFolder) -> None:
    made(own.path.parent / "c", record(untrained=3), 3.0, state="refused")
    damaged = made(own.path.parent / "d", record(untrained=4), 4.0)
    (damaged.path / "result.nc").write_bytes(b"no")
    for name, text in (("e", "{"), ("f", "[]"), ("g", '{"asked": 1}')):
        (own.path.parent / name).mkdir()
        (own.path.parent / name / "run.json").write_text(text)

    assert list(twins_of(own)) == [1, 2]
    assert list(twin_runs_of(own)) == [1, 2, 3, 4]


def test_twins_elsewhere_are_found_among_runs_that_are_named(own: RunFolder, tmp_path: Path) -> None:
    far = made(tmp_path / "elsewhere" / "x", record(untrained=7), 7.0)

    assert list(twins_of(own, [own, far])) == [1, 2, 7]


def test_what_ships_is_found_where_no_twin_was_run_and_comes_back_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(shipped_twins, "bundled_folder", lambda kind: shipped / kind)
    run = made(tmp_path / "runs" / "own", record(device="cpu"), 9.0)
    twins = {
        seed: xr.Dataset(
            {"x": ("depth", [0.5, np.nan], {"units": "1"}), "n": ((), 3)},
            coords={"depth": [0, 1], "word": ("depth", np.array(["a", "bc"]))},
            attrs={"experiment": "made_up"},
        )
        for seed in (1, 12)
    }
    write_twins(shipped_path(run.record), twins)

    found = twins_of(run)

    assert list(found) == [1, 12]
    for seed, twin in twins.items():
        xr.testing.assert_identical(found[seed], twin)
    made(tmp_path / "runs" / "twin", record(untrained=5), 5.0)
    assert list(twins_of(run)) == [5]  # what was run here comes first


def test_a_changed_question_finds_nothing_that_ships() -> None:
    known = shipped_path(record())

    for changed in ({"settings": {"seed": 1}}, {"texts": "y"}, {"weights": "v"}, {"tokenizer": "u"}, {"chat": True},
                    {"bos": {"policy": "never"}}, {"dtype": "bfloat16"}):  # fmt: skip
        assert shipped_path(record(**changed)) != known
    for alike in ({"model": "elsewhere"}, {"device": "cuda:0"}, {"files": "f"}):
        assert shipped_path(record(**alike)) == known


def test_the_same_results_are_written_as_the_same_bytes(tmp_path: Path) -> None:
    twins = {1: xr.Dataset({"x": ("depth", [0.5])})}
    for name in "ab":
        write_twins(tmp_path / name, twins)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert list(read_twins(tmp_path / "a")) == [1]
