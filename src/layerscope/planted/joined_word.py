"""A model in which a word is joined from its pieces at one layer.

Three starts and three continuations make nine words of two pieces. In one block a head looks one token
back and brings the piece found there, and the MLP has a key for each word, which asks for that piece
and for the one here; it writes one entry that stands for the whole word. So at the word's last piece,
and only there, the word is in the state behind that block and in no state before it, although both of
its pieces are in the text from the start.

Strength is the factor on what stands for the word.
"""

from __future__ import annotations

from itertools import product

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import Canvas, head_of, pieces_tokenizer

STARTS = ("ba", "ki", "mo")
CONTINUATIONS = ("ra", "lo", "ne")
WORDS = tuple(start + rest for start, rest in product(STARTS, CONTINUATIONS))
POSITIONS = 32


def joined_word(*, layer: int = 1, n_layers: int = 3, strength: float = 1.0) -> LayeredModel:
    """The model, whose block `layer` joins words."""
    tokenizer = pieces_tokenizer(STARTS, CONTINUATIONS)
    count = len(tokenizer)
    stretches = {"piece": count, "joined": len(WORDS), "position": POSITIONS, "before": count}
    canvas = Canvas(tokenizer, stretches, n_layers=n_layers, n_heads=4, positions=POSITIONS)
    canvas.embed_words("piece")
    canvas.embed_positions("position")
    head = head_of(canvas.model, layer, 1)
    canvas.look_back(head, "position", 1)
    canvas.copy(head, "piece", "before", count)
    for index, (start, rest) in enumerate(product(STARTS, CONTINUATIONS)):
        first, second = tokenizer.convert_tokens_to_ids([start, f"##{rest}"])
        reads = {canvas.place("before", first): 1.0, canvas.place("piece", second): 1.0}
        written = canvas.key(layer, index, reads, threshold=1.5)
        canvas.write(written, canvas.place("joined", index), 2 * strength)
    canvas.read_out("joined", range(count), weight=8.0)
    return load_model(canvas.model, tokenizer=tokenizer)


def word_place(word: str) -> int:
    """The entry of the residual stream that stands for a word."""
    return 2 + len(STARTS) + len(CONTINUATIONS) + WORDS.index(word)


TRIALS = (
    Trial(
        experiment="word_formation",
        plants="layer 1 (of 3) joins two pieces into a word, at the word's last piece",
        model=lambda strength: joined_word(strength=strength),
        answers=(
            Answer("mean_crossing", 1.5, 0.05, {"group": "words"}),
            Answer("mean_centre_of_part", 1.0, 0.05, {"group": "words", "site": "attention"}),
            Answer("mean_centre_of_part", 1.0, 0.05, {"group": "words", "site": "MLP"}),
        ),
        texts=lambda: {"words": list(WORDS)},
        strengths=(1.0, 0.3, 0.1, 0.03),
        strength_is="factor on what stands for the word",
    ),
)
