"""What the tests' workers are told to do; a worker finds these by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from layerscope.errors import LayerscopeError


def square(number: int) -> tuple[int, int]:
    """The square, and which process worked it out."""
    return number * number, os.getpid()


def die_once(marker: Path) -> str:
    """Dies by SIGKILL, the first time."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def die() -> None:
    """Dies every time."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """Never answers."""
    time.sleep(600)


def refuse() -> None:
    """What a person can put right."""
    raise LayerscopeError("no such thing", found="this", expected="that", hint="another")


def blunder() -> None:
    """A bug."""
    raise ZeroDivisionError("a bug")
