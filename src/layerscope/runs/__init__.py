"""Read and edit a running model.

Names are looked up when they are used, so that experiment files, which the report reads too, can
be imported where torch is not installed: write `from layerscope import runs`, then `runs.read_states`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerscope.runs.answers import Answer as Answer
    from layerscope.runs.answers import answer_of as answer_of
    from layerscope.runs.embeddings import token_contributions as token_contributions
    from layerscope.runs.machine import peak_bytes as peak_bytes
    from layerscope.runs.noise import gaussian_noise as gaussian_noise
    from layerscope.runs.plain import Restoration as Restoration
    from layerscope.runs.plain import restored_log_probabilities as restored_log_probabilities
    from layerscope.runs.reading import read_sites as read_sites
    from layerscope.runs.reading import read_states as read_states

_PLACES = {
    "Answer": "answers",
    "answer_of": "answers",
    "gaussian_noise": "noise",
    "peak_bytes": "machine",
    "read_sites": "reading",
    "read_states": "reading",
    "Restoration": "plain",
    "restored_log_probabilities": "plain",
    "token_contributions": "embeddings",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
