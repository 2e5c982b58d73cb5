"""At which layers does a token's state serve its own prediction, and when later tokens'?

The state of one token at one depth is replaced, and everything behind it is computed anew. What follows is
read at the token's own prediction (the present) and at the predictions of the tokens behind it (the future):
the divergence of the next-token distribution from the model's own, and the log-probability of the actual
next token that is lost. The future share is the future's part of the two together, by depth; where it falls
below half for good, states begin to serve the present. After the last block it is 0: nothing reads on.

What takes the state's place is the state of another text at the same position, so that it is one that the model
knows at that depth; or the mean state of the corpus, the state with noise in proportion to the corpus's
own spread, or the state that BOS and the last k tokens would have given, alone or behind another text. Beside
it stands a control: a random change of the same length.

Every target, sample and distance is kept. Averages and intervals are over passages; shares are compared with
the control's by dealing signs to whole passages, corrected for all depths.

Beware: the future is counted over `horizon` later tokens only, and its share grows with them: the crossing is
shown for every horizon. A state that is replaced early is replaced in every later block's reading too; what
is read at one block alone, context_reading and attention_knockout tell. Corruption shows what states are used
for, not what they hold.

Source: the question is ours, after Nanda et al. 2023, "Fact Finding" part 5; states of another text as in
Ben-Artzy & Schwartz 2024, "Attend first, consolidate later".
"""

from __future__ import annotations

from typing import Any, Literal

import xarray as xr
from pydantic import Field

from layerscope.contract import Claim, Earlier, ExperimentSettings, Stage
from layerscope.evidence.curves import as_curve
from layerscope.experiments import _future_claims, _future_figures, _future_measuring
from layerscope.experiments._future_summary import summarised

TAKES = {"passages"}


class Settings(ExperimentSettings):
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
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(2000, gt=0, description="bootstrap resamples of passages")

    @property
    def needs_first(self) -> bool:
        """What is left of a cut text would otherwise begin with a mere word."""
        return self.corruption in ("truncated", "swapped")


STAGES = (
    Stage(
        "spread",
        items=_future_measuring.spread_items,
        measure=_future_measuring.sums_of_states,
        combine=_future_measuring.added,
    ),
    Stage("effects", items=_future_measuring.future_items, measure=_future_measuring.effects),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Effects on present and future by depth, their shares, and where these cross."""
    return summarised(stages["effects"], settings)


def claims(result: xr.Dataset) -> list[Claim]:
    """Where states turn from the future to the present, and who reads them how deep."""
    return _future_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """The future's share of the effect, beside that of a random change of the same length."""
    curve = as_curve(result, "future_share")
    return curve.isel(perturbation=0, drop=True).assign(
        null=result.future_share.isel(perturbation=1).reset_coords(drop=True)
    )


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Present and future over depth, their share, the effect by distance, and the crossing by horizon."""
    return _future_figures.draw(result)
