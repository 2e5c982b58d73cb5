"""What each stage of a causal trace measures, for one prompt."""

from layerscope.experiments.causal_trace.measure.clean import clean, noised, pilot
from layerscope.experiments.causal_trace.measure.patches import (
    doses,
    heads,
    one_by_one,
    outputs,
    severed,
    trace,
)
from layerscope.experiments.causal_trace.measure.screen import screen

__all__ = [
    "clean",
    "doses",
    "heads",
    "noised",
    "one_by_one",
    "outputs",
    "pilot",
    "screen",
    "severed",
    "trace",
]
