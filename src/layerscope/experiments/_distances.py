"""`layerscope.evidence.distances` by the name that flat files still import it by; goes with the last of them."""

from layerscope.evidence.distances import (
    NOT_OWED_TO_TRAINING,
    RangesOfDistance,
    cautions_of_unread,
    donors,
    ends_of_ranges,
    far_targets,
    in_tokens,
    last_targets,
    longest_first,
    longest_passage,
    names_in,
    names_of_ranges,
    need_bos,
    positive,
    said_of_range,
    unread,
)

__all__ = [
    "NOT_OWED_TO_TRAINING",
    "RangesOfDistance",
    "cautions_of_unread",
    "donors",
    "ends_of_ranges",
    "far_targets",
    "in_tokens",
    "last_targets",
    "longest_first",
    "longest_passage",
    "names_in",
    "names_of_ranges",
    "need_bos",
    "positive",
    "said_of_range",
    "unread",
]
