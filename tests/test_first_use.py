"""What a package lists for type checkers is what it offers, and nothing else."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import layerscope
from layerscope import planted, runs


@pytest.mark.parametrize("package", [layerscope, runs, planted])
def test_every_name_that_a_package_lists_is_there(package: ModuleType) -> None:
    names = package.__all__

    assert len(names) > 7
    known = [getattr(package, name) for name in names if not name.isupper()]  # a constant has no module
    assert all(one.__module__.startswith("layerscope.") for one in known)
    with pytest.raises(AttributeError, match="no attribute 'Restoration'"):
        package.Restoration  # noqa: B018


def test_a_star_takes_them() -> None:
    taken: dict[str, object] = {}
    exec("from layerscope.planted import *", taken)

    assert taken["Trial"] is planted.Trial
    assert "sys" not in taken


def test_submodules_are_found_beside_them() -> None:
    from layerscope.runs import machine

    assert machine is sys.modules["layerscope.runs.machine"]
