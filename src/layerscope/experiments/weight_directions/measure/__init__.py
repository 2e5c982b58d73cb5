"""What each stage measures, one item at a time."""

from layerscope.experiments.weight_directions.measure.answers import measure_answers
from layerscope.experiments.weight_directions.measure.made import measure_power
from layerscope.experiments.weight_directions.measure.parts import (
    GROWING,
    measure_part,
    measure_random,
    measure_twin,
    measure_vocabulary,
)
from layerscope.experiments.weight_directions.measure.removals import measure_edit
from layerscope.experiments.weight_directions.measure.sinks import measure_sinks

__all__ = [
    "GROWING",
    "measure_answers",
    "measure_edit",
    "measure_part",
    "measure_power",
    "measure_random",
    "measure_sinks",
    "measure_twin",
    "measure_vocabulary",
]
