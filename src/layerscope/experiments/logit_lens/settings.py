"""Choices of a lens."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

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
    shown: int | tuple[str, ...] = Field(
        4,
        description="prompts whose top tokens are kept at every depth and position: so many, the first of each "
        'category that the model gets right, then the second; or their names, as ["world-001"]; 0: none',
    )
    shown_positions: int = Field(
        24,
        gt=0,
        description="last tokens of a shown prompt whose top tokens are kept; each costs what a prompt does",
    )

    @field_validator("shown", mode="before")
    @classmethod
    def _a_name_alone(cls, shown: Any) -> Any:
        return (shown,) if isinstance(shown, str) else shown

    @field_validator("shown")
    @classmethod
    def _not_fewer_than_none(cls, shown: int | tuple[str, ...]) -> int | tuple[str, ...]:
        if isinstance(shown, int) and shown < 0:
            raise ValueError("a number from 0, or names of prompts")
        return shown
