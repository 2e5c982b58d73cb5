"""The choices of `trigger_examples`."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from layerscope.evidence.settings import Intervals


class Settings(Intervals):
    """Which keys, which of their contexts, and how these are taken apart."""

    keys_per_layer: int = Field(
        10, ge=0, description="keys drawn at random in each layer, as in Geva et al. 2021; 0: every key"
    )
    keys: tuple[str, ...] = Field(
        (),
        description='chosen keys instead, as layer:key, such as ["3:17"], of a mixture layer:expert:key or '
        "layer:shared:key; empty: drawn at random",
    )
    routing_share: bool = Field(
        True,
        description="of a mixture's experts: multiply a key's activation by the share with which the token was "
        "sent to its expert, which is what multiplies its value; false: the activation inside the expert",
    )
    live_only: bool = Field(
        True, description="draw among keys that the census saw above 0 at least once; false: among all"
    )
    top: int = Field(25, ge=2, description="contexts kept for each key and tail; 25 in Geva et al. 2021")
    first_position: int = Field(
        1, ge=0, description="positions before this one excite nothing: the first token is often a sink"
    )
    distinct_tokens: int = Field(
        8, ge=0, description="contexts whose last so many tokens are equal count once; 0: each counts"
    )
    window: int = Field(
        24, ge=3, description="last tokens of a context that are kept for reading and for replacements"
    )
    kept_tokens: tuple[int, ...] = Field(
        (1, 2, 5, 20), description="numbers of last tokens beyond which everything is replaced, rising"
    )
    edited: int = Field(2, ge=0, description="contexts of each key in which tokens are replaced; 0: none")
    kept_share: float = Field(
        0.8, gt=0, le=1, description="share of the activation that a key's radius must carry"
    )
    census_passages: int = Field(
        16, ge=1, description="passages on which every key is watched: which are live, how many are active"
    )
    composition_tokens: int = Field(
        16,
        ge=0,
        description="tokens of each census passage at which a layer's output is compared with its values; 0: none",
    )
    random_contexts: int = Field(400, ge=50, description="random contexts, for every null")
    null_sets: int = Field(200, ge=20, description="random sets of contexts that stand for chance")
    neighbours: int = Field(
        50, ge=2, description="tokens of like frequency among which the next one is ranked"
    )
    known_sets: str = Field(
        "auto",
        description="a .json file of named sets of words, made topics on which coherence is calibrated; auto: the "
        "bundled English ones; empty: none",
    )
    least_power: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of made topics that coherence must find to be reported, with four words in each context",
    )
    tuned: str = Field(
        "",
        description="folder of a tuned lens, by whose translators values are read as well; empty: by the logit lens "
        "alone",
    )
    resamples: int = Field(2000, gt=0, description="bootstrap resamples of keys, passages or topics")
    permutations: int = Field(1999, gt=0, description="permutations of each test")

    @field_validator("keys")
    @classmethod
    def _keys_can_be_read(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if not re.fullmatch(r"\d+:((\d+|shared):)?\d+", key):
                raise ValueError(f"{key!r} is not layer:key, layer:expert:key or layer:shared:key")
        return tuple(dict.fromkeys(keys))

    @model_validator(mode="after")
    def _lengths_fit(self) -> Settings:
        lengths = self.kept_tokens
        if not lengths or list(lengths) != sorted(set(lengths)) or lengths[0] < 1:
            raise ValueError("kept_tokens must be whole numbers from 1, rising")
        if lengths[-1] >= self.window:
            raise ValueError("window must be longer than the largest of kept_tokens")
        return self
