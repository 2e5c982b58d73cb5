"""Tasks one after another, in this process."""

from __future__ import annotations

from layerscope.engines.engine import Outcome, Task
from layerscope.errors import LayerscopeError


class LocalEngine:
    """Carries a task out here, when its outcome is asked for."""

    workers = 0

    def __init__(self) -> None:
        self._task: Task | None = None

    @property
    def has_room(self) -> bool:
        """One task at a time."""
        return self._task is None

    def send(self, task: Task) -> None:
        """Keep the task until its outcome is asked for."""
        self._task = task

    def outcome(self) -> Outcome:
        """Carry it out now."""
        task, self._task = self._task, None
        assert task is not None
        try:
            return Outcome(task.key, task.work(*task.arguments))
        except LayerscopeError as error:
            return Outcome(task.key, error=error)
