"""A folded stage, and one that needs it: the contract's general case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.conftest import assert_same_bits, items_left_after
from layerscope import runs
from layerscope.jobs import running
from layerscope.jobs.prepare import prepare
from layerscope.jobs.progress import Silent
from layerscope.jobs.request import Request


@pytest.fixture
def job(state_mean: str, tiny_model: Any, passages_file: Path) -> Any:
    return prepare(Request(state_mean, model=tiny_model, passages=str(passages_file)))


def directly(job: Any) -> np.ndarray:
    """The same numbers without stages, parts or folds."""
    texts = [passage.tokens.ids for passage in job.inputs.passages]
    states = [runs.read_states(job.model, ids).numpy().astype(np.float64) for ids in texts]
    centre = np.concatenate(states, axis=1).mean(axis=1)
    rows = []
    for ids, whole in zip(texts, states, strict=True):
        for last in range(len(ids)):
            a = whole[:, last] - centre
            b = runs.read_states(job.model, ids[(last + 1) // 2 : last + 1]).numpy()[:, -1] - centre
            rows.append((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))
    return np.array(rows)


def test_the_staged_result_is_the_direct_one(tmp_path: Path, job: Any) -> None:
    result = running.run(job, tmp_path, Silent()).result()

    np.testing.assert_allclose(result.similarity.values, directly(job), rtol=1e-9)
    assert np.isfinite(result.value.values).all()


@pytest.mark.parametrize("stop", [2, 7])
def test_stopped_in_either_stage_it_goes_on_to_the_same_bits(tmp_path: Path, job: Any, stop: int) -> None:
    assert items_left_after(job, tmp_path, stop) == 10 - stop


def test_the_fold_goes_in_item_order_whatever_was_finished_first(tmp_path: Path, job: Any) -> None:
    folder = running.run(job, tmp_path / "a", Silent())
    other = running.folder_of(job, tmp_path / "b")
    late = folder.part_path("mean", 0)
    target = other.part_path("mean", 3)
    target.parent.mkdir(parents=True)
    target.write_bytes(folder.part_path("mean", 3).read_bytes())  # item 3 was finished before the others

    running.run(job, tmp_path / "b", Silent())

    assert late.read_bytes() == other.part_path("mean", 0).read_bytes()
    assert_same_bits(folder.result(), other.result())
