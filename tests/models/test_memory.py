"""Memory that really runs out, under a limit that the system keeps."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from layerscope.errors import LayerscopeError
from layerscope.models.memory import lack_is_told, ran_out

LIMITED = """
import resource
import torch
import zoo
from layerscope.models.memory import within_memory

model = zoo.layered("gpt2")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20, resource.RLIM_INFINITY))
print(within_memory(model, lambda tokens: len(torch.zeros(tokens, 2**18)), 2048, least=3), model.halvings)
try:
    within_memory(model, lambda tokens: torch.zeros(tokens, 2**30), 2048, least=1500)
except ValueError as error:
    print(error)
"""


def raised_by(allocate: object) -> BaseException:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()  # type: ignore[operator]
    return caught.value


def test_lack_of_memory_is_told_from_other_mistakes() -> None:
    assert ran_out(raised_by(lambda: torch.empty(2**50, dtype=torch.uint8)))
    assert ran_out(raised_by(lambda: np.empty(2**50, dtype=np.uint8)))
    assert ran_out(torch.OutOfMemoryError("an accelerator's"))
    assert not ran_out(raised_by(lambda: torch.zeros(2) @ torch.zeros(3)))


def test_passes_are_halved_under_a_real_limit_and_the_floor_is_told() -> None:
    paths = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, env=paths)

    assert done.returncode == 0, done.stderr
    first, problem, found, *_ = done.stdout.splitlines()
    assert first == "512 [1024, 512]"  # 2048 and 1024 rows of a megabyte do not fit into 600 of them
    assert problem == "memory ran out"
    assert found.endswith(f"no {1500 * 2**30 * 4} bytes for passes of 1500 tokens")


def test_where_nothing_can_be_halved_it_is_told_and_other_mistakes_are_not_touched() -> None:
    with pytest.raises(LayerscopeError, match="no more memory for an item"), lack_is_told("an item"):
        raise MemoryError
    with pytest.raises(RuntimeError, match="another"), lack_is_told("an item"):
        raise RuntimeError("another")
