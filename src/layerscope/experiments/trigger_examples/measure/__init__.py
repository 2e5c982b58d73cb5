"""What each stage measures, one item at a time."""

from layerscope.experiments.trigger_examples.measure.census import fold_census, measure_census, measure_values
from layerscope.experiments.trigger_examples.measure.contexts import measure_contexts
from layerscope.experiments.trigger_examples.measure.search import fold_search, measure_search
from layerscope.experiments.trigger_examples.measure.topics import measure_topics

__all__ = [
    "fold_census",
    "fold_search",
    "measure_census",
    "measure_contexts",
    "measure_search",
    "measure_topics",
    "measure_values",
]
