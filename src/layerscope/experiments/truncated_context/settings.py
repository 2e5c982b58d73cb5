"""Choices about truncated contexts; the post's own are k = 1 to 10 and shifted or original positions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from layerscope.evidence.distances import positive
from layerscope.evidence.settings import CutPassages
from layerscope.text.categories import CATEGORIES, PRONOUN, TokenCategory


class Settings(CutPassages):
    """Choices about truncated contexts; the post's own are k = 1 to 10 and shifted or original positions."""

    every: int = Field(10, ge=1, description="every context length from 1 to this, in tokens, at all targets")
    ladder: tuple[float, ...] = Field(
        (0.02, 0.04, 0.125, 0.25, 0.5),
        min_length=2,
        description="longer contexts, at some targets: below 1 a share of the longest passage, else tokens",
    )
    targets: int = Field(32, ge=1, description="contiguous targets of each passage, its last tokens")
    ladder_step: int = Field(8, ge=1, description="every how many targets one climbs the ladder")
    positions: Literal["auto", "original", "shifted"] = Field(
        "auto",
        description="position ids of a cut text: as in the whole text, or counted anew; auto is original "
        "where the family takes position ids",
    )
    instead: Literal["nothing", "another text"] = Field(
        "nothing", description="what stands before the kept tokens: BOS alone, or a passage of equal length"
    )
    moved: int = Field(
        16, ge=1, description="positions by which the ceiling's full run is moved, as far as there are"
    )
    local: int = Field(
        10, ge=1, description="the k of categories, distributions and claims, in tokens (the post's)"
    )
    enough: float = Field(
        0.9, gt=0, lt=1, description="median similarity from which on a context is said to preserve a state"
    )
    categories: tuple[TokenCategory, ...] = Field(
        CATEGORIES, min_length=1, description="categories of tokens, first fit"
    )
    pronoun: TokenCategory = Field(PRONOUN, description="what counts as a pronoun")
    names: tuple[str, ...] = Field(
        (),
        description="known names; by default two or three capitalised words in a row, found in the passages",
    )
    prefix: str = Field("Mr", min_length=1, description="what is put before names")
    most_names: int = Field(16, ge=0, description="names read behind the prefix, at most; 0 for none")
    resamples: int = Field(1000, gt=0, description="bootstrap resamples of passages")

    _lengths_are_positive = field_validator("ladder")(positive)

    @property
    def needs_first(self) -> bool:
        """What is left of a cut text would otherwise begin with a mere word."""
        return True
