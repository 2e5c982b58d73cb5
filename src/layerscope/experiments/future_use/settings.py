"""Choices about what takes a state's place, and how far on its absence is felt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerscope.evidence import Intervals


class Settings(Intervals):
    """Choices about what takes a state's place, and how far on its absence is felt."""

    corruption: Literal["another text", "noise", "mean", "truncated", "swapped"] = Field(
        "another text",
        description="what takes a state's place: another text's state at the same position, the state with noise, the "
        "mean state, the state with BOS and the last `kept` tokens alone, or that with another text before these",
    )
    noise: float = Field(
        1.0, gt=0, description="SD of noise, in SDs of each entry of the state over all passages"
    )
    kept: int = Field(
        10,
        ge=1,
        description="context of truncated and swapped states, in tokens, itself counted (the post's 10)",
    )
    positions: Literal["auto", "original", "shifted"] = Field(
        "auto", description="position ids of the truncated text; auto is original where the family takes them"
    )
    horizon: int = Field(
        16, ge=1, description="later tokens whose predictions are read; at most half of the longest passage"
    )
    near: int = Field(
        4, ge=1, description="later tokens that count as near; the others of the horizon are far"
    )
    corrupted_passages: int = Field(
        12, ge=1, description="passages that are corrupted, the longest; mean and spread are over all"
    )
    targets: int = Field(
        6, ge=1, description="contiguous tokens of each passage that are corrupted, one at a time"
    )
    samples: int = Field(
        1,
        ge=1,
        description="draws of noise, or other texts, for each token; mean and truncated states have one",
    )

    @property
    def needs_first(self) -> bool:
        """What is left of a cut text would otherwise begin with a mere word."""
        return self.corruption in ("truncated", "swapped")
