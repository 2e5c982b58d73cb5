"""A model in which one head always takes the first token of the text, whatever it is.

Position 0 carries a mark. The head looks for it with every query, and brings the word that stands there
into a stretch of its own, which the unembedding reads. No other head and no MLP writes.

Strength is the factor on the nats between the first token and any other; at 0 the head looks at all
tokens alike.
"""

from __future__ import annotations

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Trial
from layerscope.planted._writing import LOUD, Canvas, head_of, word_tokenizer
from layerscope.planted.looks_back import WORDS


def first_token(*, layer: int = 1, head: int = 1, n_layers: int = 3, strength: float = 1.0) -> LayeredModel:
    """The model, with the head that takes the first token."""
    tokenizer = word_tokenizer(WORDS)
    count = len(tokenizer)
    canvas = Canvas(tokenizer, {"word": count, "first": 1, "found": count}, n_layers=n_layers)
    canvas.embed_words("word")
    mark = canvas.place("first")
    canvas.write(canvas.model.transformer.wpe.weight[0], mark, 1.0)
    weights = head_of(canvas.model, layer, head)
    canvas.look_for(weights, mark, nats=LOUD * strength)
    canvas.copy(weights, "word", "found", count)
    canvas.read_out("found", range(count), weight=8.0)
    return load_model(canvas.model, tokenizer=tokenizer)


TRIALS = (
    Trial(
        experiment="first_token_attention",
        plants="head 1 of block 1 (of 3) gives the first token all its attention, wherever it stands",
        model=lambda strength: first_token(strength=strength),
        strength_is=f"factor on the {LOUD:.0f} nats between the first token and any other",
    ),
)
