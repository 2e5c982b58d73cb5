"""Choices about averages, and about what is measured on some tokens only."""

from __future__ import annotations

from pydantic import Field

from layerscope.evidence import Intervals
from layerscope.maths.alignment import FEWEST


class Settings(Intervals):
    """Choices about averages, and about what is measured on some tokens only."""

    first_position: int = Field(1, ge=0, description="positions before this one are left out of averages")
    leave_out_ends: int = Field(
        1,
        ge=0,
        description="depths left out at each end of the growth rate: the first layer does something else",
    )
    massive: int = Field(
        3, ge=1, description="dimensions with the largest share of the squared norm, which are left out once"
    )
    sampled_tokens: int = Field(
        16, ge=0, description="tokens of each passage, evenly spread, whose depths are compared in pairs"
    )
    aligned_tokens: int = Field(
        64, ge=FEWEST, description="tokens of each passage, evenly spread, for centred kernel alignment"
    )
    centre_texts: int = Field(
        8, gt=0, description="passages (or prompts, without passages) that give the mean state"
    )
    wrong: bool = Field(False, description="whether prompts count that the model gets wrong")
    most_changes: int = Field(
        3,
        ge=1,
        description="changes of phase to consider; at most as many as leave two layers to a phase on average",
    )
    phase_resamples: int = Field(
        200, gt=0, description="bootstrap resamples for phases, each of which is cut anew"
    )
