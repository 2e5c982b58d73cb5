"""Choices of attention_patterns: which queries and texts count."""

from __future__ import annotations

from pydantic import Field

from layerscope.evidence.settings import Intervals


class Settings(Intervals):
    """Choices about which queries and texts count; the published ones are defaults where there are any."""

    fixed_query: int = Field(
        512,
        ge=1,
        description="first query position, in tokens, at which distances are read in all texts alike; where most "
        "passages are not longer than that, half the median passage instead",
    )
    fixed_texts: int = Field(
        16,
        ge=0,
        description="passages, evenly spread over those that have the fixed queries, whose mean pattern there is the "
        "null of distances; each is read once more",
    )
    least_kept: float = Field(
        0.1,
        ge=0,
        le=1,
        description="queries whose attention that counts is below this share have no entropy (Vig & Belinkov: 0.1)",
    )
    mean_positions: int = Field(
        10,
        ge=2,
        le=64,
        description="first tokens over which patterns are compared with the head's mean pattern (Vig & Belinkov: 10)",
    )
    sentences: int = Field(
        200,
        ge=0,
        description="at most this many sentences of the treebank, of its test part where it has one",
    )
    repeats: int = Field(8, ge=0, description="texts of random tokens read twice, for induction")
    repeated_tokens: int = Field(
        48, ge=2, description="random tokens in each of them, all different; fewer where the context is short"
    )
    sink_share: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="share on the first token from which a head, or a layer on average, counts as resting there "
        "(Gu et al.: 0.3); other thresholds are shown beside it",
    )
    resamples: int = Field(1000, gt=0, description="bootstrap resamples of passages and documents")
