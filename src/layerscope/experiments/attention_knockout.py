"""At which layers does a token need to read which distances, or the subject?

The attention of one token to a set of keys is cut, in one layer or a window of layers, and nothing else is
changed; what its prediction loses is read as the divergence of the next-token distribution from the model's
own, and as the log-probability of the actual next token (or of a prompt's answer). In passages the keys are
those within a range of distances, all those beyond one, or the first token; in prompts, where the last token
is cut, they are the subject, the other tokens, or the first token. The attention that lay on them is spread
over the other keys, sent to the first token, or kept on the heads' mean values: what all three agree on does
not depend on the choice. Each set stands beside keys drawn at random that hold as much attention in that
layer, and beside the attention that was cut.

The primary index is the centroid of depth of the divergence, far less near, as in context_reading: above 0, far
context is needed in later layers than near context. The map of layers and sets is corrected as a whole, by
sign-flip permutation over passages or prompts. Every target,
draw and way of placing the removed attention is kept; averages are over passages.

Beware: one layer's reading can be made up for by another's, so single layers understate and windows overstate
(`windows`); cutting one token does not stop near tokens from relaying what they have read. A divergence is
above 0 whatever is cut, which is why the control stands beside it. The first token holds much attention and
little content: sent to it, attention is nearly removed.

Source: Geva et al. 2023, "Dissecting recall of factual associations", for cutting the last token from the subject
in windows; Nanda et al. 2023, "Fact Finding" part 5, and Linsefors' comments, for near and far. Where the
removed attention goes, the control and the index are ours.
"""

from __future__ import annotations

from typing import Any, Literal

import xarray as xr
from pydantic import Field, field_validator

from layerscope.contract import Claim, Earlier, Stage
from layerscope.evidence.distances import RangesOfDistance, positive
from layerscope.experiments import (
    _knockout_claims,
    _knockout_figures,
    _knockout_items,
    _knockout_measuring,
    _knockout_summary,
)

TAKES = {"passages", "prompts"}
NEEDS: set[str] = set()


class Settings(RangesOfDistance):
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
        "the head's "
        "mean value; the first is the one that claims are about",
    )
    control: Literal["as much attention", "as many keys"] = Field(
        "as much attention",
        description="what is cut at random beside it: keys, neither the first nor the token itself, that hold as much "
        "attention, or as many keys",
    )
    draws: int = Field(1, ge=1, description="random draws of the control for each target")
    cut_passages: int = Field(12, ge=1, description="passages that are cut, the longest ones")
    targets: int = Field(
        3, ge=1, description="targets of each passage, evenly spread where there is far context"
    )
    cut_prompts: int = Field(120, ge=1, description="prompts that are cut, taken from the categories in turn")
    wrong: bool = Field(False, description="whether prompts count that the model gets wrong")
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(2000, gt=0, description="bootstrap resamples of passages or prompts")

    _widths_are_positive = field_validator("windows")(positive)

    @field_validator("fates")
    @classmethod
    def _no_fate_twice(cls, fates: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(fates)) < len(fates):
            raise ValueError("each of them once")
        return fates


STAGES = (
    Stage(
        "values",
        items=_knockout_items.value_items,
        measure=_knockout_measuring.sums_of_values,
        combine=_knockout_measuring.added,
    ),
    Stage("passages", items=_knockout_items.passage_items, measure=_knockout_measuring.cut_passage),
    Stage("prompts", items=_knockout_items.prompt_items, measure=_knockout_measuring.cut_prompts),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Maps of effects with their controls, agreement of the fates, centroids and the index."""
    return _knockout_summary.summarised(stages, settings)


def claims(result: xr.Dataset) -> list[Claim]:
    """Where near and far context is needed, which cells are significant, and where the subject is read."""
    return list(_knockout_claims.claims(result))


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """What cutting off the farthest range (or the subject) does at each layer, beside the random cut."""
    return _knockout_summary.main_curve(result)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Maps, curves by distance and by where the removed attention goes, centroids, and the subject by category."""
    return _knockout_figures.draw(result)
