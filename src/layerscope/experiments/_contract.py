"""`layerscope.contract` by the name that flat files still import it by; goes when the last of them has a room."""

from layerscope.contract import (
    Claim,
    Earlier,
    ExperimentSettings,
    Inputs,
    Judged,
    Passage,
    Prompt,
    Stage,
    WorkItem,
)

__all__ = [
    "Claim",
    "Earlier",
    "ExperimentSettings",
    "Inputs",
    "Judged",
    "Passage",
    "Prompt",
    "Stage",
    "WorkItem",
]
