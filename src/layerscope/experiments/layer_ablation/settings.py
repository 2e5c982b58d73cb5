"""Choices of an ablation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerscope.evidence import Intervals

Ablation = Literal[
    "skip", "skip earlier", "repeat", "repeat earlier", "swap", "swap earlier", "mean attention", "mean MLP",
    "random push",
]  # fmt: skip
EVERYTHING: tuple[Ablation, ...] = (
    "skip", "skip earlier", "repeat", "swap", "mean attention", "mean MLP", "random push",
)  # fmt: skip
EARLIER = " earlier"
"""How ablations end that are done to earlier tokens only, and read at later ones."""


class Settings(Intervals):
    """Choices of an ablation."""

    ablations: tuple[Ablation, ...] = Field(
        EVERYTHING,
        min_length=1,
        description="what is done to each layer; also 'repeat earlier' and 'swap earlier', for the earlier tokens only",
    )
    ablated_passages: int = Field(
        8, gt=0, description="passages that are ablated, spread over all that are given"
    )
    tokens: int = Field(64, gt=1, description="tokens of each passage that are run, from its beginning")
    mean_passages: int = Field(
        8, gt=0, description="passages that give the mean of what attention and MLP add"
    )
    first_position: int = Field(1, ge=0, description="positions before this one are read, but left out of averages and "
                                "never given a mean: the first token's vectors are unlike any other's")  # fmt: skip
    earlier: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of the tokens that count as earlier where a layer is changed for those only",
    )
    negligible: float = Field(
        0.001, gt=0, description="divergence in nats, up to which a layer is said to make no difference"
    )
