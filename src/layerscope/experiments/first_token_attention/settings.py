"""Choices of first_token_attention: which texts are read, and what counts as late in them."""

from __future__ import annotations

from pydantic import Field

from layerscope.evidence.settings import Intervals


class Settings(Intervals):
    """Choices about texts; give --longest 800 and books as passages for what the post did."""

    texts: int = Field(
        12, ge=1, description="the longest passages, so many, are read (the post: 40 samples of each book)"
    )
    late_share: float = Field(
        0.5, gt=0, lt=1, description="share of the longest text's positions, from its end, that count as late"
    )
    resamples: int = Field(1000, gt=0, description="bootstrap resamples of passages")

    @property
    def needs_first(self) -> bool:
        """It is one of the readings that are compared."""
        return True
