"""Tasks in worker processes of this machine.

The pool is pebble's: unlike `concurrent.futures` and loky, where one dead worker breaks every task under way, it
knows which task a worker held, so only that one is tried again; and it ends tasks that hang. Workers are forked
from a server process that has imported the heavy modules and done nothing else, so a new one is there in
milliseconds; where the system has no such server they are started afresh.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from pebble import ProcessExpired, ProcessPool

from layerscope.engines.engine import Outcome, Task
from layerscope.errors import LayerscopeError

_TRIES = 2


class ProcessEngine:
    """Worker processes; a context: when it is left, however it is left, they are gone.

    Args:
        workers: how many processes.
        modules: what they import before the first task.
    """

    def __init__(self, workers: int, *, modules: Sequence[str] = ()) -> None:
        self.workers = workers
        self._pool = ProcessPool(
            max_workers=workers, initializer=_begin, initargs=(dict(os.environ),), context=_context(modules)
        )
        self._under_way: dict[Future[Any], tuple[Task, int]] = {}

    def __enter__(self) -> ProcessEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    @property
    def has_room(self) -> bool:
        """One task for each worker, and one that waits so that none of them does."""
        return len(self._under_way) <= self.workers

    def send(self, task: Task, tried: int = 0) -> None:
        """Give a task to the pool."""
        future = self._pool.schedule(task.work, args=task.arguments, timeout=task.seconds)
        self._under_way[future] = task, tried + 1

    def outcome(self) -> Outcome:
        """The next outcome. A task whose worker died or hung is tried once more, then told by name."""
        while True:
            done = next(iter(wait(self._under_way, return_when=FIRST_COMPLETED).done))
            task, tries = self._under_way.pop(done)
            try:
                return Outcome(task.key, done.result())
            except LayerscopeError as error:
                return Outcome(task.key, error=error)
            except (ProcessExpired, TimeoutError) as error:
                if tries == _TRIES:
                    return Outcome(task.key, error=_given_up(task, error))
                self.send(task, tries)


def _given_up(task: Task, error: Exception) -> LayerscopeError:
    code = getattr(error, "exitcode", None)
    if code is None:
        how = f"no answer within {task.seconds} s"
    else:
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return LayerscopeError(
        f"worker processes did not survive one piece of work, in {_TRIES} attempts",
        found=f"{task.name}: {how}",
        expected="an answer",
        hint="fewer workers need less memory at once (--workers 1); --workers 0 shows what is raised; what was "
        "computed is kept",
    )


# -- in the worker ---------------------------------------------------------------------------------


def _begin(environment: dict[str, str]) -> None:
    """Take the environment of the process that gives the work, leave Ctrl-C to it, and do not outlive it."""
    os.environ.clear()  # the server's may be older
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    giver = multiprocessing.parent_process()
    assert giver is not None

    def end_with_it() -> None:
        giver.join()
        os._exit(1)

    threading.Thread(target=end_with_it, daemon=True).start()


# -- how workers are started -----------------------------------------------------------------------

_SERVER = "forkserver" in multiprocessing.get_all_start_methods()
_PLAIN: Any = multiprocessing.get_context("forkserver" if _SERVER else "spawn")


class _Process(_PLAIN.Process):  # type: ignore[misc]
    """A process that does not run the caller's script again, as multiprocessing would have it."""

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802
        with _no_main_module():
            return _PLAIN.Process._Popen(process)


class _Context(type(_PLAIN)):  # type: ignore[misc]
    Process = _Process


def _context(modules: Sequence[str]) -> Any:
    context = _Context()
    if _SERVER:
        context.set_forkserver_preload(list(modules))
    return context


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Workers need nothing from the script that started us; a plain script without a guard would start them again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
