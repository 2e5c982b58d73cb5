"""Choices, each with its unit and its reason."""

from __future__ import annotations

from pydantic import Field

from layerscope.evidence import Intervals


class Settings(Intervals):
    """What is left out of averages; seed, level and resamples come with `Intervals`."""

    first_position: int = Field(
        1, ge=0, description="positions before this one are left out: the first token's state is far longer"
    )
    leave_out_ends: int = Field(
        1,
        ge=0,
        description="depths left out at each end of the rate: the first and last layer do something else",
    )
