"""A model in which one head always takes the first token of the text, whatever it is.

Position 0 carries a mark. The head looks for it with every query, and brings the word that stands there
into a stretch of its own, which the unembedding reads. No other head and no MLP writes.

Strength is the factor on the nats between the first token and any other; at 0 the head looks at all
tokens alike.
"""

from __future__ import annotations

import math

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import LOUD, Canvas, head_of, word_tokenizer
from layerscope.planted.looks_back import WORDS

_POSITIONS, _HEADS = 32, 2


def first_token(*, layer: int = 1, head: int = 1, n_layers: int = 3, strength: float = 1.0) -> LayeredModel:
    """The model, with the head that takes the first token."""
    return _looking_for_the_first(head, n_layers, brings=layer, nats={layer: LOUD * strength})


def shuns_first() -> LayeredModel:
    """The opposite: in every layer, one head gives the first token nothing and all others alike."""
    return _looking_for_the_first(1, 3, brings=1, nats=dict.fromkeys(range(3), -LOUD))


def _looking_for_the_first(head: int, n_layers: int, *, brings: int, nats: dict[int, float]) -> LayeredModel:
    """One head in each of some layers looks for the first token or away from it; one layer's brings what it finds."""
    tokenizer = word_tokenizer(WORDS)
    count = len(tokenizer)
    canvas = Canvas(tokenizer, {"word": count, "first": 1, "found": count}, n_layers=n_layers)
    canvas.embed_words("word")
    mark = canvas.place("first")
    canvas.write(canvas.model.transformer.wpe.weight[0], mark, 1.0)
    for layer, strength in nats.items():
        canvas.look_for(head_of(canvas.model, layer, head), mark, nats=strength)
    canvas.copy(head_of(canvas.model, brings, head), "word", "found", count)
    canvas.read_out("found", range(count), weight=8.0)
    return load_model(canvas.model, tokenizer=tokenizer)


def _excess(strength: float) -> float:
    """Share on the first token less 1 / n, over the second half of texts that fill the 32 positions."""
    loud = math.exp(LOUD * strength)
    seen = range(_POSITIONS // 2 + 1, _POSITIONS + 1)
    return sum(loud / (loud + n - 1) - 1 / n for n in seen) / len(seen)


TRIALS = (
    Trial(
        experiment="first_token_attention",
        plants="L1H1 (of 3 layers) gives the first token all its attention, wherever it stands",
        model=lambda strength: first_token(strength=strength),
        answers=(
            Answer(
                "head_late_excess",
                _excess,
                0.005,
                {"reading": "BOS first", "layer": 1, "head": 1},
                nothing=0.0,
            ),
            Answer(
                "head_late_excess",
                _excess,
                0.005,
                {"reading": "another token first", "layer": 1, "head": 1},
                nothing=0.0,
            ),
            Answer(
                "late_excess",
                lambda strength: _excess(strength) / _HEADS,
                0.005,
                {"reading": "BOS first", "layer": 1},
                nothing=0.0,
                p="late_excess_p",
                says="more",
                opposite="less",
            ),
        ),
        opposite=shuns_first,
        strengths=(1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01),
        strength_is=f"factor on the {LOUD:.0f} nats between the first token and any other",
    ),
)
