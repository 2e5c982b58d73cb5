"""A model in which one block decides what is said, and every other block can be left out.

Thirty words, each with one that follows it. The MLP of one block knows which: a key for every word writes
the direction of its follower, and the unembedding reads it. All other blocks write nothing. So without
that block every word of the vocabulary is equally probable, and the divergence from the model's own
distribution is known: with V words, a logit of a at the follower and 0 elsewhere it is
ln V + p ln p + (1 − p) ln((1 − p) / (V − 1)), where p = e^a / (e^a + V − 1). Without any other block
nothing changes at all; and what the block does to earlier tokens no later one uses.

Strength is the factor on what the MLP writes. At 0 the model says nothing in particular to begin with.
"""

from __future__ import annotations

import math
from functools import partial

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import SPECIAL, Canvas, word_tokenizer
from layerscope.planted.growing import WORDS, passages

_LAYER, _N_LAYERS = 2, 4
_LOUDNESS = 4.0


def one_block_decides(
    *, layer: int = _LAYER, n_layers: int = _N_LAYERS, strength: float = 1.0
) -> LayeredModel:
    """The model, whose block `layer` gives every word its follower."""
    tokenizer = word_tokenizer(WORDS)
    vocabulary = len(tokenizer)
    canvas = Canvas(tokenizer, {"word": vocabulary, "follower": vocabulary}, n_layers=n_layers)
    canvas.embed_words("word")
    canvas.read_out("follower", range(vocabulary), weight=_LOUDNESS)
    for word in range(vocabulary):
        written = canvas.key(layer, word, {canvas.place("word", word): 1.0}, threshold=0.5)
        canvas.write(written, canvas.place("follower", (word + 1) % vocabulary), 2.0 * strength)
    return load_model(canvas.model, tokenizer=tokenizer)


def divergence_without_it(strength: float) -> float:
    """Nats between what the model says and an even choice."""
    others = len(WORDS) + len(SPECIAL) - 1
    follower = math.exp(_LOUDNESS * strength)
    p = follower / (follower + others)
    return math.log(others + 1) + p * math.log(p) + (1 - p) * math.log((1 - p) / others)


TRIALS = (
    Trial(
        experiment="layer_ablation",
        plants="the L2 MLP (of 4 layers) alone decides what is said: without it every word is equally probable",
        model=lambda strength: one_block_decides(strength=strength),
        answers=(
            Answer(
                "mean_kl", divergence_without_it, 0.02, {"ablation": "skip", "layer": _LAYER}, nothing=0.0
            ),
            # A random push there does some harm too: how much is not known beforehand, but less.
            Answer(
                "excess",
                lambda strength: divergence_without_it(strength) / 2,
                0.8,
                {"layer": _LAYER},
                nothing=0.0,
                p="excess_p",
                says="more",
            ),
        ),
        texts=partial(dict, passages=passages()),
        strengths=(1.0, 0.5, 0.25, 0.1),
        strength_is="factor on what the MLP writes, whose logit is 4 at strength 1",
    ),
)
