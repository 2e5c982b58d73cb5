"""Choices of attention_knockout: what is cut, where, and where the removed attention goes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from layerscope.evidence.distances import RangesOfDistance, positive
from layerscope.evidence.settings import CutPassages

PLACED = {
    "renormalise": "spread over the other keys",
    "first": "sent to the first token",
    "mean": "kept on mean values",
}
"""Where the removed attention goes, by the name of the setting."""


class Settings(RangesOfDistance, CutPassages):
    """Choices about what is cut, where, and where the removed attention goes."""

    windows: tuple[float, ...] = Field(
        (1,),
        min_length=1,
        description="layers that are cut together, around each layer: below 1 shares of all layers, else layers "
        "(Geva et al.: 9); the first is the one that claims are about",
    )
    fates: tuple[Literal["renormalise", "first", "mean"], ...] = Field(
        ("renormalise", "first", "mean"),
        min_length=1,
        description="where the removed attention goes: over the other keys in proportion, to the first token, or to "
        "the head's mean value; the first is the one that claims are about",
    )
    control: Literal["as much attention", "as many keys"] = Field(
        "as much attention",
        description="what is cut at random for comparison: keys, neither the first nor the token itself, that hold as "
        "much attention, or as many keys",
    )
    draws: int = Field(1, ge=1, description="random draws of the control for each target")
    targets: int = Field(
        3, ge=1, description="targets of each passage, evenly spread where there is far context"
    )
    cut_prompts: int = Field(120, ge=1, description="prompts that are cut, taken from the categories in turn")
    wrong: bool = Field(False, description="whether prompts count that the model gets wrong")

    _widths_are_positive = field_validator("windows")(positive)

    @field_validator("fates")
    @classmethod
    def _no_fate_twice(cls, fates: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(fates)) < len(fates):
            raise ValueError("each of them once")
        return fates
