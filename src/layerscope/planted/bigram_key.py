"""A model in which one MLP key is excited by one bigram, and by nothing else.

A head of block 0 looks one token back and brings the word found there. In block 1, one key asks for the
second word here and the first word before it, and exceeds its threshold only when both are there; it
then writes the word that the model says next. No other key and no other head writes.

Strength is the factor on what the key writes.
"""

from __future__ import annotations

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Trial
from layerscope.planted._writing import Canvas, head_of, word_tokenizer
from layerscope.planted.looks_back import POSITIONS, WORDS

BIGRAM = ("red", "fox")
NEXT = "sang"
LAYER, KEY = 1, 5


def bigram_key(*, n_layers: int = 3, strength: float = 1.0) -> LayeredModel:
    """The model, with key 5 of block 1 excited by "red fox"."""
    tokenizer = word_tokenizer(WORDS)
    count = len(tokenizer)
    stretches = {"word": count, "position": POSITIONS, "before": count, "next": 1}
    canvas = Canvas(tokenizer, stretches, n_layers=n_layers, n_heads=4, positions=POSITIONS)
    canvas.embed_words("word")
    canvas.embed_positions("position")
    head = head_of(canvas.model, 0, 1)
    canvas.look_back(head, "position", 1)
    canvas.copy(head, "word", "before", count)
    first, second, after = tokenizer.convert_tokens_to_ids([*BIGRAM, NEXT])
    reads = {canvas.place("before", first): 1.0, canvas.place("word", second): 1.0}
    written = canvas.key(LAYER, KEY, reads, threshold=1.5)
    canvas.write(written, canvas.place("next"), 2 * strength)
    canvas.read_out("next", [after], weight=8.0)
    return load_model(canvas.model, tokenizer=tokenizer)


TRIALS = (
    Trial(
        experiment="trigger_examples",
        plants=f"key {KEY} of block {LAYER} (of 3) is excited by “{' '.join(BIGRAM)}” alone; other keys never",
        model=lambda strength: bigram_key(strength=strength),
        strength_is="factor on what the key writes",
    ),
)
