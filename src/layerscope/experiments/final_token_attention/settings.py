"""Choices of final_token_attention: which prompts count, and what they are compared with."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from layerscope.evidence.settings import Intervals


class Settings(Intervals):
    """Choices about which prompts count, and what they are compared with."""

    trace: str = Field(
        "",
        description="folder of a causal_trace run on the same prompts and model, to compare layers with; or empty",
    )
    wrong: bool = Field(
        False, description="whether prompts count that the model gets wrong (the post left them out)"
    )
    resamples: int = Field(1000, gt=0, description="bootstrap resamples of prompts")
    permutations: int = Field(
        999, gt=0, description="permutations of prompts over categories, for the comparison of heads"
    )

    @field_validator("trace")
    @classmethod
    def _from_any_folder(cls, trace: str) -> str:
        return str(Path(trace).expanduser().resolve()) if trace else ""
