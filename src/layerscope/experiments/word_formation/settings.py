"""Choices of word_formation: which words are compared, and how far the erasure probes are followed."""

from __future__ import annotations

from pydantic import Field

from layerscope.evidence.settings import Intervals


class Settings(Intervals):
    """Choices of word_formation."""

    prefix: str = Field("It was about", description="text before every word")
    most_pieces: int = Field(3, ge=2, description="words of 2 to so many pieces are paired")
    pairs: int = Field(12, ge=1, description="pairs of words of each number of pieces; no word is in two")
    smallest: float = Field(
        0.05,
        gt=0,
        description="pairs whose predictions are less than this many nats apart are left out of averages",
    )
    twin: str = Field(
        "merges",
        pattern="^(merges|blank|capital)$",
        description="how a word of one token gets a form of several: the tokenizer's last merge undone ('merges'), "
        "without the blank before it ('blank'), or with a capital ('capital')",
    )
    twins: int = Field(60, ge=2, description="words with two forms that are compared")
    classes: int = Field(
        8, ge=2, description="pieces (and words) that the erasure probes choose between, at most"
    )
    contexts: int = Field(4, ge=1, description="words before which each word of the erasure probes is put")
    penalty: float = Field(
        1.0,
        gt=0,
        description="weight of half the squared norm of the probes' weights, added to the summed loss",
    )
    erasure_from: int = Field(1, ge=0, description="depth from which the fall of the probe is counted")
    erasure_to: int | None = Field(
        None, ge=1, description="depth to which it is counted; by default 9/32 of the layers (Feucht et al.)"
    )

    def erasure_depths(self, n_layers: int) -> tuple[int, int]:
        """Depths between which the fall of the erasure probes is taken."""
        return (
            self.erasure_from,
            self.erasure_to or max(self.erasure_from + 1, round(9 / 32 * n_layers)),
        )
