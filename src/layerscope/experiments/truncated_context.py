"""How much of a state do the last k tokens decide, for every k?

Every target token of a passage is read twice: with its whole context, and with BOS and its last k tokens
alone, itself counted. Their similarity is the cosine of the two states after the mean state of that depth
(over full runs of all passages) is removed from both; its square is the share of norm that the last k
tokens explain. One sweep gives every k up to `every` for all targets; a ladder of longer contexts is
climbed by some of them. The floor is the similarity that is left when another passage, equally long, stands
before the target token alone; the ceiling that of the full run with itself at moved positions.

Tokens are kept apart. Medians and quantile bands are over tokens, intervals over passages. Categories of
tokens are compared at matched positions, with and without tokens that act as sinks. Arrival curves show at
which depth what stands between two distances is felt; their half-rise says where. Names are read once more
behind a prefix ("Mr"), as the post did.

Beware: an input that is missing early is amplified by later work in place, so curves fall with depth, and
arrival curves rise, for that reason too; what is read where, context_reading tells apart. A cut context is
shorter, not only emptier: a delimiter that comes to stand first may become a sink, which the norms show.

Source: Nanda et al. 2023, "Fact Finding: do early layers specialise in local processing?" (part 5), with its
comments by Linsefors.
"""

from __future__ import annotations

from typing import Any, Literal

import xarray as xr
from pydantic import Field, field_validator

from layerscope.experiments import (
    _truncated_claims,
    _truncated_figures,
    _truncated_prefix,
    _truncated_reading,
    _truncating,
)
from layerscope.experiments._contract import Claim, Earlier, ExperimentSettings, Stage
from layerscope.experiments._distances import positive
from layerscope.experiments._summaries import as_curve
from layerscope.experiments._truncated_summaries import summarised
from layerscope.results.pages import Page
from layerscope.text.categories import CATEGORIES, PRONOUN, TokenCategory

TAKES = {"passages"}


class Settings(ExperimentSettings):
    """Choices about truncated contexts; the post's own are k = 1 to 10 and shifted or original positions."""

    every: int = Field(10, ge=1, description="every context length from 1 to this, in tokens, at all targets")
    ladder: tuple[float, ...] = Field(
        (0.02, 0.04, 0.125, 0.25, 0.5),
        min_length=2,
        description="longer contexts, at some targets: below 1 a share of the longest passage, else tokens",
    )
    cut_passages: int = Field(
        12, ge=1, description="passages that are cut, the longest ones; means are over all"
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
        0.9, gt=0, lt=1, description="median similarity from which on a context is said to decide a state"
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
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(1000, gt=0, description="bootstrap resamples of passages")

    _lengths_are_positive = field_validator("ladder")(positive)

    @property
    def needs_first(self) -> bool:
        """What is left of a cut text would otherwise begin with a mere word."""
        return True


STAGES = (
    Stage("mean", items=_truncating.mean_items, measure=_truncating.sum_of_states, combine=_truncating.added),
    Stage("cut", items=_truncating.cut_items, measure=_truncating.similarities),
    Stage(
        "prefix",
        items=_truncated_prefix.prefix_items,
        measure=_truncated_prefix.behind_prefix,
        along=("name",),
    ),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Medians, bands, categories, arrivals and the prefix test, from the kept similarities."""
    return summarised(stages["cut"], stages["prefix"], settings)


def claims(result: xr.Dataset) -> list[Claim]:
    """What the post claimed, what its critic answered, and what the floor and the prefix say."""
    return _truncated_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """Median similarity with the local context, beside what is left when only the token itself is the same."""
    local = int(result.attrs["local"])
    curve = as_curve(result, "median_similarity", null=result.median_floor)
    curve = curve.sel(context_length=local, drop=True)
    curve["value"].attrs["long_name"] = f"median similarity, last {local} tokens kept"
    return curve


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Similarity over depth, for every k, by quantile and category; arrivals, norms, and the prefix."""
    return _truncated_figures.draw(result)


def read(result: xr.Dataset) -> dict[str, Page]:
    """The tokens whose states the last tokens decide least, in their context."""
    return _truncated_reading.pages(result)
