"""What an engine is: somewhere to send tasks, one after another, and to hear how they went."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from layerscope.errors import LayerscopeError


@dataclass(frozen=True)
class Task:
    """A call that can be made anywhere.

    Attributes:
        key: what the outcome is told by.
        name: what a person is told of it.
        work: a function; one that other processes find by its module's name, where the engine has any.
        arguments: what it is called with.
        seconds: after so many it is taken to hang; None waits for ever.
    """

    key: Hashable
    name: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How a task went: its value, or why a person must put something right. Anything else is raised."""

    key: Hashable
    value: Any = None
    error: LayerscopeError | None = None


@runtime_checkable
class Engine(Protocol):
    """Takes tasks and tells their outcomes, in any order."""

    workers: int
    """Processes beside this one that tasks are sent to; 0 where they are carried out here."""

    @property
    def has_room(self) -> bool:
        """Whether another task can be sent now."""

    def send(self, task: Task) -> None:
        """Take a task."""

    def outcome(self) -> Outcome:
        """Wait until a task that was sent is done."""


def values_of(engine: Engine, tasks: Iterable[Task]) -> Iterator[Any]:
    """The values of tasks, in their order, each as soon as it and those before it are there; an error is raised."""
    left, order = deque(tasks), deque[Hashable]()
    values: dict[Hashable, Any] = {}
    while left or order:
        while left and engine.has_room:
            order.append(left[0].key)
            engine.send(left.popleft())
        outcome = engine.outcome()
        if outcome.error is not None:
            raise outcome.error
        values[outcome.key] = outcome.value
        while order and order[0] in values:
            yield values.pop(order.popleft())
