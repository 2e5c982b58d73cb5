"""Names that several test files and the shared fixtures use."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PROMPTS = [
    {"id": "fox", "category": "animals", "prompt": "the red fox met the old dog in", "subject": "fox"},
    {"id": "bird", "category": "animals", "prompt": "a small bird sang and the dog", "subject": "bird"},
    {"id": "town", "category": "places", "prompt": "the dog ran to the red town of", "subject": "red town"},
    {"id": "stone", "category": "places", "prompt": "the town of stone and the old", "subject": "stone"},
]
QUICK = {"samples": 2, "resamples": 20, "smallest_range": 1e-6, "noise": 1.0}
"""Settings of a causal trace that takes a tenth of a second on the tiny model."""


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def gone(process: int) -> bool:
    """Whether a process has ended, or does within ten seconds."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False
