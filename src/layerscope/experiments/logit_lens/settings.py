"""Choices of a lens."""

from __future__ import annotations

from pydantic import Field

from layerscope.evidence import Intervals


class Settings(Intervals):
    """Choices of a lens."""

    tuned: str = Field(
        "",
        description="folder of a tuned lens (config.json and params.pt or params.safetensors); empty for none",
    )
    positions: int = Field(
        32,
        gt=0,
        description="positions of each passage that are read, evenly spread; every depth costs an unembedding",
    )
    first_position: int = Field(
        1, ge=0, description="positions before this one are not read: BOS predicts nothing"
    )
    wrong: bool = Field(False, description="whether prompts count that the model gets wrong")
    direct: bool = Field(
        True, description="whether the prompts' answers are attributed to layers, heads and MLPs directly"
    )
