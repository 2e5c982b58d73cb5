"""A model in which one MLP key is excited by one bigram, and by nothing else.

A head of block 0 looks one token back and brings the word found there. In block 1, one key asks for the
second word here and the first word before it, and exceeds its threshold only when both are there; it
then writes the word that the model says next, and passages of the trial say it too. No other key and no
other head writes.

Strength is how strongly the key reads the word before. Its threshold lies just above what the second
word alone gives, by half of what the first can add and by a small margin; so below a strength of about
0.04 nothing excites the key, and at 0 no key of the model is ever excited.
"""

from __future__ import annotations

from functools import partial

import torch

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import Canvas, head_of, word_tokenizer
from layerscope.planted.looks_back import POSITIONS, WORDS

BIGRAM = ("red", "fox")
NEXT = "sang"
LAYER, KEY = 1, 5

_MARGIN = 0.02
"""Layer norm scales states alike to a part in a thousand only."""


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
    reads = {canvas.place("before", first): strength, canvas.place("word", second): 1.0}
    written = canvas.key(LAYER, KEY, reads, threshold=1 + _MARGIN + (0.5 - _MARGIN) * strength)
    canvas.write(written, canvas.place("next"), 2.0)
    canvas.read_out("next", [after], weight=8.0)
    return load_model(canvas.model, tokenizer=tokenizer)


def passages(*, seed: int = 0, number: int = 40, words: int = 14) -> list[str]:
    """Words drawn at random; in most passages the bigram once, in some both words apart."""
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for index in range(number):
        drawn = [WORDS[i] for i in torch.randint(len(WORDS), (words,), generator=generator).tolist()]
        place = 3 + int(torch.randint(words - 6, (1,), generator=generator))
        if index % 4:
            drawn[place : place + 3] = [*BIGRAM, NEXT]
        else:
            drawn[place : place + 3] = [BIGRAM[1], NEXT, BIGRAM[0]]
        texts.append(" ".join(drawn))
    return texts


_CELL = {"key": f"{LAYER}:{KEY}"}

TRIALS = (
    Trial(
        experiment="trigger_examples",
        plants=f"key {KEY} of layer {LAYER} (of 3) is excited by “{' '.join(BIGRAM)}” alone; other keys never",
        model=lambda strength: bigram_key(strength=strength),
        answers=(
            Answer("highest_activation", lambda strength: 0.52 * strength - 0.02, 0.01, _CELL),
            Answer("shared_last_token", 1.0, 1e-9, _CELL),
            Answer("shared_bigram", 1.0, 1e-9, _CELL),
            Answer("context_radius", 2.0, 1e-9, _CELL),
            Answer("agreement", 1.0, 0.2, _CELL),
        ),
        texts=partial(dict, passages=passages()),
        strengths=(1.0, 0.3, 0.1, 0.06),
        strength_is="how strongly the key reads the word before",
    ),
)
