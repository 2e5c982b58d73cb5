"""Choices that several experiments share: each is worded, checked and given its default once."""

from __future__ import annotations

from pydantic import Field

from layerscope.contract import ExperimentSettings


class Intervals(ExperimentSettings):
    """How intervals are made. `Over` reads them."""

    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(
        2000, gt=0, description="bootstrap resamples of whole passages, prompts or documents"
    )


class CutPassages(Intervals):
    """Which passages are cut before some of their tokens."""

    cut_passages: int = Field(
        12, ge=1, description="passages that are cut, the longest ones; means are over all"
    )
