"""Choices of context_reading about distances, cuts and targets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerscope.evidence.distances import RangesOfDistance
from layerscope.evidence.settings import CutPassages


class Settings(RangesOfDistance, CutPassages):
    """Choices about distances, cuts and targets."""

    targets: int = Field(
        8, ge=1, description="targets of each passage, evenly spread where there is far context"
    )
    weight: Literal["share", "norm"] = Field(
        "share",
        description="heights of the centroid: length over that of what attention adds, or the length alone",
    )

    @property
    def needs_first(self) -> bool:
        """What is left of a cut text would otherwise begin with a mere word."""
        return True
