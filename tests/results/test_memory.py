"""A run in memory gives back what a run folder gives back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.results.memory import RunInMemory
from layerscope.results.record import Asked, Machine, RunRecord
from layerscope.results.schema import quantity
from layerscope.results.store import RunFolder, RunStore

ASKED = Asked(
    experiment="made_up", settings={}, model="m", loadable=True, revision=None, weights="w", tokenizer="t",
    bos={}, chat=False, texts="x", device="cpu", dtype="float32",
)  # fmt: skip
MACHINE = Machine(processor="p", device_name="d", threads=1, environment={}, versions={}, code="c")


def everything_at_once() -> xr.Dataset:
    """One variable of every kind that results hold."""
    x, y = ("prompt",), ("prompt", "layer")
    values = {
        "transposed": quantity(np.arange(6.0).reshape(3, 2).T, y, "a view, not contiguous"),
        "half": quantity(np.array([1, np.nan], dtype=np.float16), x, "float16 with NaN"),
        "bool": quantity(np.array([True, False]), x, "bool"),
        "small": quantity(np.array([1, -2], dtype=np.int8), x, "int8"),
        "other_order": quantity(np.array([1, 2], dtype=">i4"), x, "the other byte order"),
        "text": quantity(np.array(["a", "é\u202e日"], dtype="<U30"), x, "text, wider than it need be"),
        "no_text": quantity(np.array(["", ""], dtype="<U5"), x, "empty text"),
        "one_text": quantity(np.array("hello", dtype="<U9"), "", "a single text"),
        "one_number": quantity(np.float32(2.5), "", "a single number"),
        "nothing": quantity(np.zeros((0, 2)), ("token", "prompt"), "no rows"),
        "no_words": quantity(np.zeros(0, dtype="<U3"), "token", "no words"),
    }
    values["small"].attrs |= {"count": 3, "share": 0.5, "single": np.float32(2)}
    coords = {
        "prompt": ("prompt", np.array(["p", "q"], dtype="<U7"), {"long_name": "prompt"}),
        "layer": range(3),
    }
    return xr.Dataset(values, coords=coords, attrs={"experiment": "made_up", "share": 0.5, "count": 2})


@pytest.fixture
def stores(tmp_path: Path) -> tuple[RunStore, RunStore]:
    record = RunRecord(asked=ASKED, machine=MACHINE, facts={}, chunk_plan={})
    return RunInMemory(record), RunFolder.create(tmp_path / "run", record, {})


def assert_alike(a: xr.Dataset, b: xr.Dataset) -> None:
    """Equal in everything a reader could see, types of attributes and widths of text among it."""
    assert a.identical(b)
    assert list(a.variables) == list(b.variables)
    for name in a.variables:
        ours, theirs = a.variables[name], b.variables[name]
        assert ours.dtype == theirs.dtype, name
        assert ours.values.flags.c_contiguous == theirs.values.flags.c_contiguous, name
        assert ours.values.flags.writeable == theirs.values.flags.writeable, name
        assert [type(value) for value in ours.attrs.values()] == [type(v) for v in theirs.attrs.values()], (
            name
        )
    assert [type(value) for value in a.attrs.values()] == [type(value) for value in b.attrs.values()]


def test_a_result_comes_back_as_it_would_from_disk(stores: tuple[RunStore, RunStore]) -> None:
    memory, folder = stores
    for store in stores:
        record = store.record
        record.result = store.save_result(everything_at_once())
        store.save_record(record)

    assert_alike(memory.result(), folder.result())


def test_parts_come_back_as_they_would_from_disk(stores: tuple[RunStore, RunStore]) -> None:
    given = everything_at_once()
    del given.small.attrs["single"]  # attributes of parts are JSON
    for store in stores:
        store.save_part("stage", 3, given, item="i")
    given.half.values[:] = 7  # what the giver does later is his own business

    memory, folder = stores
    assert memory.done("stage") == folder.done("stage") == {3}
    assert memory.done("another") == set()
    ours, theirs = memory.part("stage", 3), folder.part("stage", 3)
    assert ours.identical(theirs)
    assert [ours[name].dtype for name in ours.variables] == [theirs[name].dtype for name in theirs.variables]


def test_a_broken_promise_is_refused_without_a_file_too(stores: tuple[RunStore, RunStore]) -> None:
    with pytest.raises(LayerscopeError, match="variable x without long_name"):
        stores[0].save_result(xr.Dataset({"x": ("prompt", [1.0])}))


def test_python_objects_are_refused_as_parts(stores: tuple[RunStore, RunStore]) -> None:
    with pytest.raises(TypeError, match="Python objects"):
        stores[0].save_part("s", 0, xr.Dataset({"x": ("prompt", np.array([{}], dtype=object))}), item="i")
