"""Choices of word_position_probe, each with its unit and reason."""

from __future__ import annotations

from pydantic import Field

from layerscope.evidence.settings import Intervals

PREFIXES = {
    "post": "The United States Declaration of Independence received its first formal public reading, "
    "in Philadelphia.\nWhen",
    "anchored": "The house stands by the road.\nWhen",
    "unanchored": "The house stands by the road and when",
}
"""Prefixes by name: the post's, and two short ones that differ in their full stop and line end only."""


class Settings(Intervals):
    """Choices of the word position probe."""

    prefix: str = Field(
        "anchored",
        description=f"text before the words that ends in a sentence of its own: one of {', '.join(PREFIXES)} "
        "('post' is the post's), or any text",
    )
    bare_prefix: str = Field(
        "unanchored", description="text before the words without a full stop or line end, likewise"
    )
    prompt_words: int = Field(7, ge=2, le=30, description="words of each prompt (the post: 7)")
    fewest_pieces: int = Field(1, ge=1, description="tokens of the shortest words")
    most_pieces: int = Field(
        3, ge=1, description="tokens of the longest words; all lengths are equally likely"
    )
    train_prompts: int = Field(200, ge=10, description="prompts that probes are trained on (the post: 1,286)")
    test_prompts: int = Field(
        100, ge=4, description="prompts of held-out words that they are tested on (the post: 2,560)"
    )
    held_out: float = Field(0.2, gt=0, lt=1, description="share of the words that only test prompts use")
    penalty: float = Field(
        1.0,
        gt=0,
        description="weight of half the squared norm of the probe's weights, added to the summed loss: 1 over "
        "scikit-learn's C (the post: 1, on seven times as many words)",
    )
    scheme: str = Field(
        "multinomial",
        pattern="^(multinomial|one-vs-rest)$",
        description="one softmax over all indices, or a yes-or-no probe for each (the post)",
    )
    scale: str = Field(
        "whole",
        pattern="^(whole|entries|none)$",
        description="states are centred and divided by one number for all entries ('whole': the penalty asks for "
        "directions that carry some of the state), each by its own SD ('entries'), or left as they are ('none', "
        "the post)",
    )
    fewest: int = Field(3, ge=1, description="test cases that an index needs at a position to count there")
    untrained: bool = Field(True, description="whether the untrained twin is probed too")
    sentences: bool = Field(True, description="whether the index of a sentence in a paragraph is probed too")
    names: bool = Field(True, description="whether the index of a name across templates is probed too")
    depth: int | None = Field(
        None,
        ge=1,
        description="depth of the causal steps and of the figure of guesses; by default a third of the "
        "layers, which is the post's (4 of 12), fixed before anything is measured",
    )
    causal_prompts: int = Field(40, ge=2, description="test prompts of the causal steps")
    moved_word: int = Field(3, ge=1, description="index of the word whose state is moved, from 0")
    heads: int = Field(3, ge=1, description="heads taken out at a time")
    ablation_controls: int = Field(3, ge=0, description="draws of as many other heads of the same layers")

    def depth_of(self, n_layers: int) -> int:
        """The depth at which the causal steps are taken."""
        return self.depth or max(1, round(n_layers / 3))
