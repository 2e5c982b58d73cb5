"""How many worker processes, with how many threads each, and the engine that has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from layerscope.engines.engine import Engine
from layerscope.engines.local import LocalEngine
from layerscope.errors import LayerscopeError
from layerscope.jobs.request import MOST_WORKERS

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

Workers = int | Literal["auto"]
"""0: everything in this process; a number of processes; or what the machine has cores and memory for."""

_SHARE_OF_MEMORY = 0.5
_WITHOUT_WEIGHTS = 500_000_000
"""Bytes allowed for what a worker holds besides the model's weights: an assumption, between what was measured on
SmolLM2 without a large pass (0.2 GB) and with a full causal trace's (0.6 to 0.8 GB); see docs/workers.md."""


def read_workers(written: str) -> Workers:
    """Workers as a command is given them.

    Raises:
        LayerscopeError: neither a number nor "auto".
    """
    if written == "auto":
        return "auto"
    if written.isdecimal() and written.isascii() and int(written) <= MOST_WORKERS:
        return int(written)
    raise LayerscopeError(
        "this is no number of worker processes",
        found=f"--workers {written}",
        expected=f"auto, 0 (everything in one process), 1, 2, ... at most {MOST_WORKERS}",
        hint="--workers auto",
    )


def threads_of_each(workers: Workers, threads: int | None) -> int | None:
    """Threads of each process: as asked; else the cores divided among workers; None where there are none."""
    if threads is not None or workers == 0:
        return threads
    from layerscope.runs.machine import usable_cores

    return 1 if workers == "auto" else max(1, usable_cores() // workers)


def number_of(
    workers: Workers, model: LayeredModel | None, threads: int | None = None, *, twins: bool = False
) -> int:
    """How many processes share the work on a model.

    Args:
        workers: as asked.
        model: the model; None for small ones that workers make by themselves.
        threads: of each; one, unless more are asked for.
        twins: whether its untrained twins are measured too: each process holds one beside the model then.

    Raises:
        LayerscopeError: some were asked for, and the model exists in this process alone.
    """
    from layerscope.runs.machine import usable_cores

    if workers != "auto":
        if workers and model is not None:
            refuse_unsendable(model)
        return workers
    found = usable_cores() // (threads or 1)
    if model is not None:
        found = min(found, _that_hold(model, twins=twins or model.facts.untrained is not None))
    return found if found > 1 else 0


def _that_hold(model: LayeredModel, *, twins: bool) -> int:
    """Workers that the machine's memory holds; none where they could not load the model.

    Weights that are mapped from a file are there once; others, a twin's, and what a process holds besides, for each.
    """
    from layerscope.models.memory import own_bytes, weight_bytes
    from layerscope.runs.budget import memory_bytes

    if not model.facts.loadable or model.device.type != "cpu":
        return 0
    weights = weight_bytes(model.module)
    found = own_bytes(model.module)
    twin = weights if twins else 0
    own = (weights if found is None else found) + twin
    left = _SHARE_OF_MEMORY * memory_bytes(model.device) - weights - twin  # this process holds them
    return max(0, int(left // (own + _WITHOUT_WEIGHTS)))


def refuse_unsendable(model: LayeredModel) -> None:
    """Refuse a model that workers could not load by themselves.

    Raises:
        LayerscopeError: it exists in this process alone.
    """
    if not model.facts.loadable:
        raise LayerscopeError(
            "this model is an object of this process: workers cannot load it",
            found=model.facts.name,
            expected="a model that was loaded by its name",
            hint="model.save_pretrained(FOLDER), the tokenizer's too, and model='FOLDER'; or workers=0",
        )


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
