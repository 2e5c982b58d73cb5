"""`layerscope.evidence.probing` by the name that flat files still import it by; goes with the last of them."""

from layerscope.evidence.probing import (
    GroupItem,
    Texts,
    Weights,
    group_items,
    model_of,
    read_group,
)

__all__ = [
    "GroupItem",
    "Texts",
    "Weights",
    "group_items",
    "model_of",
    "read_group",
]
