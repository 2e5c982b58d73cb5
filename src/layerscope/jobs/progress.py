"""How far long work has come, and how long it will still take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Told about stages and items; shows them somewhere."""

    def begin(
        self, stage: str, *, items: int, size: float, done_items: int, done_size: float, noun: str = "items"
    ) -> None:
        """A stage begins, or several runs at once; part of it may have been done in an earlier session.

        Args:
            stage: what begins.
            items: how many there are, and of these done before.
            size: what all cost, and what was done before did, in a unit of the stage's own.
            done_items, done_size: see `items`, `size`.
            noun: what is counted.
        """

    def finished(self, name: str, size: float, items: int = 1) -> None:
        """An item is done and saved; or, of several runs at once, so many of them (often none yet)."""

    def end(self) -> None:
        """The stage is over, or was interrupted."""


class Silent:
    """Shows nothing."""

    def begin(
        self, stage: str, *, items: int, size: float, done_items: int, done_size: float, noun: str = "items"
    ) -> None:
        """Nothing to show."""

    def finished(self, name: str, size: float, items: int = 1) -> None:
        """Nothing to show."""

    def end(self) -> None:
        """Nothing to show."""


class TimeLeft:
    """Estimates the rest of a stage from the sizes of what was done in this session."""

    def __init__(self, size: float, done: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._done, self._session = size, done, 0.0
        self._clock, self._start = clock, clock()

    def add(self, size: float) -> None:
        """An item of this size is done."""
        self._session += size

    @property
    def share(self) -> float:
        """Share of the stage that is done, by size, 0 to 1."""
        return (self._done + self._session) / self._size if self._size else 1.0

    def seconds(self) -> float | None:
        """Seconds left, or None before anything is known."""
        if not self._session:
            return None
        rate = self._session / max(self._clock() - self._start, 1e-9)
        return max(0.0, self._size - self._done - self._session) / rate


class PlainLines:
    """A line now and then, for logs and pipes."""

    def __init__(
        self,
        write: Callable[[str], object] | None = None,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write or (lambda line: print(line, file=sys.stderr, flush=True))
        self._every, self._shown, self._clock = every, 0.0, clock

    def begin(
        self, stage: str, *, items: int, size: float, done_items: int, done_size: float, noun: str = "items"
    ) -> None:
        """Announce the stage."""
        self._stage, self._items, self._done, self._noun = stage, items, done_items, noun
        self._left = TimeLeft(size, done_size, self._clock)
        self._shown = self._clock()
        kept = f", {done_items} kept from before" if done_items else ""
        self._write(f"{stage}: {items} {noun}{kept}")

    def finished(self, name: str, size: float, items: int = 1) -> None:
        """A line, if the last one is some seconds old or the stage is done."""
        self._left.add(size)
        self._done += items
        now = self._clock()
        if now - self._shown >= self._every or self._done == self._items:
            self._shown = now
            left = self._left.seconds()
            rest = f", {in_words(left)} left" if left is not None and self._done < self._items else ""
            self._write(
                f"{self._stage}: {self._done}/{self._items} {self._noun}, {self._left.share:.0%}{rest}"
            )

    def end(self) -> None:
        """Nothing to close."""


class Bar:
    """A moving bar on a terminal, by rich."""

    def begin(
        self, stage: str, *, items: int, size: float, done_items: int, done_size: float, noun: str = "items"
    ) -> None:
        """Draw the bar."""
        from rich.progress import BarColumn, Progress, TextColumn

        self._items, self._done = items, done_items
        self._left = TimeLeft(size, done_size)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rest]}"),
            transient=True,
        )
        self._task = self._bar.add_task(stage, total=size, count=f"{done_items}/{items}", rest="")
        self._bar.update(self._task, advance=done_size)
        self._bar.start()

    def finished(self, name: str, size: float, items: int = 1) -> None:
        """Move the bar."""
        self._left.add(size)
        self._done += items
        left = self._left.seconds()
        rest = f"{in_words(left)} left" if left is not None else ""
        self._bar.update(self._task, advance=size, count=f"{self._done}/{self._items}", rest=rest)

    def end(self) -> None:
        """Remove the bar."""
        self._bar.stop()


def for_this_terminal() -> Progress:
    """A bar where a person looks on, plain lines in a log."""
    return Bar() if sys.stderr.isatty() and sys.stdout.isatty() else PlainLines()


def in_words(seconds: float) -> str:
    """A length of time, to the precision that a person wants."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
