"""Worker processes: a death takes one task with it, and none outlives the process that gave the work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import tasks
from layerscope.engines.engine import Engine, Outcome, Task, values_of
from layerscope.engines.local import LocalEngine
from layerscope.engines.processes import ProcessEngine
from layerscope.errors import LayerscopeError
from quick import gone


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessEngine]:
    with ProcessEngine(2) as engine:
        yield engine


def heard(engine: Engine, *sent: Task) -> dict[object, Outcome]:
    found: dict[object, Outcome] = {}
    for task in sent:
        while not engine.has_room:
            outcome = engine.outcome()
            found[outcome.key] = outcome
        engine.send(task)
    while len(found) < len(sent):
        outcome = engine.outcome()
        found[outcome.key] = outcome
    return found


def test_values_come_in_order_from_other_processes(workers: ProcessEngine) -> None:
    sent = [Task(number, str(number), tasks.square, (number,)) for number in range(12)]

    values = list(values_of(workers, sent))

    assert [value for value, _ in values] == [number * number for number in range(12)]
    assert os.getpid() not in {process for _, process in values}
    assert list(values_of(LocalEngine(), sent)) == [(number * number, os.getpid()) for number in range(12)]


def test_a_task_whose_worker_dies_is_tried_once_more_and_no_other_is_lost(
    workers: ProcessEngine, tmp_path: Path
) -> None:
    others = [Task(number, str(number), tasks.square, (number,)) for number in range(6)]

    found = heard(workers, *others[:2], Task("d", "d", tasks.die_once, (tmp_path / "mark",)), *others[2:])

    assert found["d"].value == "survived"
    assert [found[number].value[0] for number in range(6)] == [number * number for number in range(6)]


def test_a_task_that_kills_every_worker_is_told_by_name(workers: ProcessEngine) -> None:
    found = heard(workers, Task("deadly", "item 7 of a stage", tasks.die), Task(1, "1", tasks.square, (3,)))

    error = found["deadly"].error
    assert error is not None
    assert error.found == "item 7 of a stage: ended by SIGKILL"
    assert found[1].value[0] == 9


def test_a_task_that_hangs_is_ended(workers: ProcessEngine) -> None:
    error = heard(workers, Task("h", "an endless item", tasks.hang, seconds=0.3))["h"].error

    assert error is not None
    assert "an endless item: no answer within 0.3 s" in str(error)


@pytest.mark.parametrize("engine", ["workers", "local"])
def test_what_a_person_can_put_right_is_told_and_a_bug_is_raised(
    engine: str, request: pytest.FixtureRequest
) -> None:
    here: Engine = LocalEngine() if engine == "local" else request.getfixturevalue("workers")

    told = heard(here, Task("r", "r", tasks.refuse))["r"].error

    assert isinstance(told, LayerscopeError)
    assert told.hint == "another"
    with pytest.raises(LayerscopeError, match="no such thing"):
        list(values_of(here, [Task("r", "r", tasks.refuse)]))
    here.send(Task("b", "b", tasks.blunder))
    with pytest.raises(ZeroDivisionError):
        here.outcome()


ALONE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start what runs behind with Ctrl-C ignored
from engines import tasks
from layerscope.engines.engine import Task
from layerscope.engines.processes import ProcessEngine

with ProcessEngine(2) as engine:
    for number in range(2):
        engine.send(Task(number, str(number), tasks.square, (number,)))
    print(*(engine.outcome().value[1] for _ in range(2)), flush=True)
    for number in range(3):
        engine.send(Task(number, str(number), tasks.hang))
    engine.outcome()
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_are_gone_when_their_process_is(end: signal.Signals) -> None:
    """A plain script, without a guard for `__main__`: workers must not run it again."""
    words = [sys.executable, "-c", ALONE]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as script:
        assert script.stdout is not None
        workers = [int(word) for word in script.stdout.readline().split()]
        assert workers
        script.send_signal(end)
        script.wait(timeout=30)

    assert all(gone(worker) for worker in workers)
