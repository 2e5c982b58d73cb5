"""Work items one after another, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Work = Callable[[Any], Any]


class LocalEngine:
    """Runs items here, in order."""

    name = "local"

    def run(self, work: Work, items: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        """Yield (index, work(item)) as each is finished.

        Other engines may yield in another order; whoever collects puts parts in item order.
        """
        for index, item in items:
            yield index, work(item)
