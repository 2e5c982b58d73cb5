"""Names that several test files and the shared fixtures use."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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


def rewritten(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the record of a run and give it the digest of what it says now, as a deceiver would."""
    from layerscope.results.record import CHANGING
    from layerscope.results.seal import sealed

    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    change(content)
    (run / "run.json").write_text(json.dumps(sealed(content, CHANGING)), encoding="utf-8")
