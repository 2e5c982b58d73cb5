"""A model in which one head looks exactly k tokens back, whatever the words are.

Positions are one entry each. The head's query turns a position into the one k before it, its key is the
position itself, and it brings the word found there into a stretch of its own, which the unembedding
reads: the model says the word that stood k tokens back. No other head and no MLP writes. The first k
tokens have nothing k back, and look at all they see alike.

So up to that layer a state is decided by its own token and position, and behind it by exactly one more:
it is the same in any context that keeps the last k + 1 tokens and their positions.

Strength is the factor on the nats between the key looked for and any other; at 0 the head looks at all
tokens alike. For truncated contexts it is the factor on what the head brings; at 0 it brings nothing, and
every state is decided by its own token.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import LOUD, Canvas, head_of, word_tokenizer

WORDS = (
    "the", "red", "fox", "met", "an", "old", "dog", "in", "a", "town", "of", "stone", "and", "sang",
    "to", "two", "small", "birds",
)  # fmt: skip
POSITIONS = 32


def looks_back(
    *,
    by: int,
    layer: int = 1,
    head: int = 1,
    n_layers: int = 3,
    strength: float = 1.0,
    brings: float = 1.0,
) -> LayeredModel:
    """The model.

    Args:
        by: how many tokens back the head looks.
        layer: its block.
        head: which head of that block, 0 to 3; head 0 of block 0 is not free.
        n_layers: blocks in all.
        strength: factor on the nats between the key looked for and any other.
        brings: factor on what the head brings.
    """
    canvas = words_in_places("found", n_layers=n_layers, positions=POSITIONS)
    count = len(canvas.tokenizer)
    weights = head_of(canvas.model, layer, head)
    canvas.look_back(weights, "position", by, nats=LOUD * strength)
    canvas.copy(weights, "word", "found", count, weight=brings)
    canvas.read_out("found", range(count), weight=8.0)
    return load_model(canvas.model, tokenizer=canvas.tokenizer)


def words_in_places(*found: str, n_layers: int, positions: int) -> Canvas:
    """A silent model whose states hold their word and their position, with room for each word found elsewhere."""
    tokenizer = word_tokenizer(WORDS)
    rooms = dict.fromkeys(found, len(tokenizer))
    stretches = {"word": len(tokenizer), "position": positions, **rooms}
    canvas = Canvas(tokenizer, stretches, n_layers=n_layers, n_heads=4, positions=positions)
    canvas.embed_words("word")
    canvas.embed_positions("position")
    return canvas


def passages() -> Mapping[str, Any]:
    """Words drawn at random, as many as fit."""
    draw = random.Random(0)
    return {"passages": [" ".join(draw.choices(WORDS, k=POSITIONS - 2)) for _ in range(12)]}


TRIALS = (
    Trial(
        experiment="attention_patterns",
        plants="L1H1 (of 3 layers) looks exactly 3 tokens back, the others everywhere alike",
        model=lambda strength: looks_back(by=3, strength=strength),
        answers=(Answer("fixed_offset", 3.0, 1e-6, {"layer": 1, "head": 1}),),
        strengths=(1.0, 0.5, 0.3, 0.2, 0.15, 0.1),
        strength_is=f"factor on the {LOUD:.0f} nats between the key looked for and any other",
    ),
    Trial(
        experiment="truncated_context",
        plants="from depth 2 of 3 on, a state is decided by its own token and the third before it",
        model=lambda strength: looks_back(by=3, brings=strength),
        answers=(
            # Behind the head it takes the token found too; before it, its own token is enough, which claims nothing.
            Answer("reach", 4.0, 1e-6, {"depth": 2}, nothing=1.0),
        ),
        texts=passages,
        strengths=(1.0, 0.8, 0.6),
        strength_is="factor on what the head brings",
    ),
)
