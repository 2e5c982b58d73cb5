"""A model in which a state serves only later tokens first, and then only its own prediction.

Positions are one entry each. A head of one block looks exactly so many tokens back and brings the word found
there into a stretch of its own, which alone the unembedding reads: every token says the word that stood so
many tokens back. No other head and no MLP writes. So what a state holds of its own word, up to that block,
serves one later token and never itself; what the head has brought serves the token itself and nobody else.
A state of another text at the same position keeps its position, and with it what its own head looks for.

Strength is the factor on what the head brings; at 0 no prediction depends on any word, and no state serves
anything.
"""

from __future__ import annotations

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import head_of
from layerscope.planted.looks_back import words_in_places
from layerscope.planted.near_then_far import POSITIONS, passages

BLOCK, BY = 2, 6


def serves_later(*, n_layers: int = 5, strength: float = 1.0) -> LayeredModel:
    """The model.

    Args:
        n_layers: blocks in all.
        strength: factor on what the head brings.
    """
    canvas = words_in_places("found", n_layers=n_layers, positions=POSITIONS)
    count = len(canvas.tokenizer)
    weights = head_of(canvas.model, BLOCK, 1)
    canvas.look_back(weights, "position", BY)
    if strength:
        canvas.copy(weights, "word", "found", count, weight=strength)
    canvas.read_out("found", range(count), weight=8.0)
    return load_model(canvas.model, tokenizer=canvas.tokenizer)


_FAR = "5 to 16 tokens on"

TRIALS = (
    Trial(
        experiment="future_use",
        plants=f"up to layer {BLOCK} (of 5) a state serves only the prediction {BY} tokens on, behind it only its own",
        model=lambda strength: serves_later(strength=strength),
        answers=(
            # Between the input of the block and its output the share falls from 1 to 0.
            Answer("crossing", BLOCK + 0.5, 1e-6),
            Answer("future_share", 1.0, 1e-6, {"perturbation": "corruption", "depth": BLOCK}),
            Answer("future_share", 0.0, 1e-6, {"perturbation": "corruption", "depth": BLOCK + 1}),
            Answer("half_gone", BLOCK + 0.5, 1e-6, {"readers": _FAR}),
        ),
        texts=passages,
        strengths=(1.0, 0.5, 0.25, 0.1, 0.05),
        strength_is="factor on what the head brings",
    ),
)
