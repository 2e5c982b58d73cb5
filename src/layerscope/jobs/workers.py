"""How many worker processes, with how many threads each, and the engine that has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from layerscope.engines.engine import Engine
from layerscope.engines.local import LocalEngine
from layerscope.errors import LayerscopeError
from layerscope.models.layered import LayeredModel

Workers = int | Literal["auto"]
"""0: everything in this process; a number of processes; or what the machine has cores and memory for."""

_SHARE_OF_MEMORY = 0.5


def read_workers(written: str) -> Workers:
    """Workers as a command is given them.

    Raises:
        LayerscopeError: neither a number nor "auto".
    """
    if written == "auto":
        return "auto"
    if written.isdecimal() and written.isascii() and int(written) <= 4096:
        return int(written)
    raise LayerscopeError(
        "this is no number of worker processes",
        found=f"--workers {written}",
        expected="auto, 0 (everything in one process), 1, 2, ...",
        hint="--workers auto",
    )


def threads_of_each(workers: Workers, threads: int | None) -> int | None:
    """Threads of each process: as asked; else the cores divided among workers; None where there are none."""
    if threads is not None or workers == 0:
        return threads
    from layerscope.runs.machine import usable_cores

    return 1 if workers == "auto" else max(1, usable_cores() // workers)


def number_of(workers: Workers, model: LayeredModel, threads: int | None = None) -> int:
    """How many processes a model is given to.

    Args:
        workers: as asked.
        model: the model.
        threads: of each; one, unless more are asked for.

    Raises:
        LayerscopeError: some were asked for, and the model exists in this process alone.
    """
    from layerscope.jobs.worker import refuse_unsendable
    from layerscope.runs.budget import memory_bytes
    from layerscope.runs.machine import usable_cores

    if workers != "auto":
        if workers:
            refuse_unsendable(model)
        return workers
    if not model.facts.loadable or model.device.type != "cpu":
        return 0
    weights = sum(weight.numel() * weight.element_size() for weight in model.module.parameters())
    fit = int(_SHARE_OF_MEMORY * memory_bytes(model.device) // max(weights, 1)) - 1  # one is held here
    found = min(usable_cores() // (threads or 1), fit)
    return found if found > 1 else 0


@contextmanager
def engine_of(number: int) -> Iterator[Engine]:
    """An engine with so many worker processes, or this process alone; workers are gone afterwards."""
    if not number:
        yield LocalEngine()
        return
    from layerscope.engines.processes import ProcessEngine
    from layerscope.jobs.worker import MODULES

    with ProcessEngine(number, modules=MODULES) as engine:
        yield engine
