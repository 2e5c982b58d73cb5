"""A model that reads a near token in one block and a far one two blocks later.

Positions are one entry each. A head of block 1 looks exactly one token back, a head of block 3 exactly so
many; each brings the word found there into a stretch of its own. Where the token looked for is not there,
because the text is cut or too short, the head rests on BOS, which it holds half as dear. No other head and
no MLP writes. So near context is read fresh in block 1 and nowhere else, far context in block 3, and nothing
is relayed, carried or amplified. The prediction is of both words found, so that either reading is missed.

Strength is the factor on the nats between the key looked for and any other; at 0 both heads look at all
tokens alike, and read every distance in both blocks alike.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import LOUD, head_of
from layerscope.planted.looks_back import WORDS, words_in_places

POSITIONS, NEAR_BLOCK, FAR_BLOCK = 64, 1, 3
_PASSAGES, _LENGTH = 12, 60


def near_then_far(
    *, far: int, n_layers: int = 5, strength: float = 1.0, far_first: bool = False
) -> LayeredModel:
    """The model.

    Args:
        far: how many tokens back the head of block 3 looks.
        n_layers: blocks in all.
        strength: factor on the nats between the key looked for and any other.
        far_first: the opposite: the far token is read in block 1, the near one in block 3.
    """
    canvas = words_in_places("near", "far", n_layers=n_layers, positions=POSITIONS)
    count = len(canvas.tokenizer)
    blocks = (FAR_BLOCK, NEAR_BLOCK) if far_first else (NEAR_BLOCK, FAR_BLOCK)
    for block, by, found in ((blocks[0], 1, "near"), (blocks[1], far, "far")):
        weights = head_of(canvas.model, block, 1)
        canvas.look_back(weights, "position", by, nats=LOUD * strength)
        weights.query_bias[0] = LOUD * strength / 2 * weights.query.shape[1] ** 0.5
        canvas.copy(weights, "word", found, count)
    for found in ("near", "far"):
        canvas.read_out(found, range(count), weight=8.0)
    return load_model(canvas.model, tokenizer=canvas.tokenizer)


def passages() -> Mapping[str, Any]:
    """Words drawn at random, as many as fit."""
    draw = random.Random(0)
    return {"passages": [" ".join(draw.choices(WORDS, k=_LENGTH)) for _ in range(_PASSAGES)]}


_STRENGTH_IS = f"factor on the {LOUD:.0f} nats between the key looked for and any other"

TRIALS = (
    Trial(
        experiment="truncated_context",
        plants="a head of layer 1 (of 5) reads the token before, a head of layer 3 the one twenty back",
        model=lambda strength: near_then_far(far=20, strength=strength),
        opposite=lambda: near_then_far(far=20, far_first=True),
        answers=(
            Answer(
                "half_rise_difference",
                FAR_BLOCK - NEAR_BLOCK,
                0.1,
                nothing=0.0,
                says="later",
                opposite="earlier",
            ),
        ),
        texts=passages,
        strengths=(1.0, 0.5, 0.3),
        strength_is=_STRENGTH_IS,
    ),
    Trial(
        experiment="context_reading",
        plants="a head of layer 1 (of 5) reads the token before, a head of layer 3 the one forty back",
        model=lambda strength: near_then_far(far=40, strength=strength),
        opposite=lambda: near_then_far(far=40, far_first=True),
        answers=(
            Answer(
                "far_less_near",
                FAR_BLOCK - NEAR_BLOCK,
                0.1,
                nothing=0.0,
                p="far_less_near_p_adjusted",
                says="later",
                opposite="earlier",
            ),
        ),
        texts=passages,
        strengths=(1.0, 0.5, 0.3),
        strength_is=_STRENGTH_IS,
    ),
    Trial(
        experiment="attention_knockout",
        plants="a head of layer 1 (of 5) reads the token before, a head of layer 3 the one forty back",
        model=lambda strength: near_then_far(far=40, strength=strength),
        opposite=lambda: near_then_far(far=40, far_first=True),
        answers=(
            Answer(
                "far_less_near",
                FAR_BLOCK - NEAR_BLOCK,
                0.1,
                {"fate": "renormalise", "window": 1},
                nothing=0.0,
                says="later",
                opposite="earlier",
            ),
        ),
        texts=passages,
        strengths=(1.0, 0.5, 0.3),
        strength_is=_STRENGTH_IS,
    ),
)
