"""A model of which one layer reads nothing: what its attention adds is exactly zero.

A small GPT-2 with random weights of a fixed seed, large enough that every block does something. In one
block the attention's output projection is zero, so that block sees each token alone. Its attention
pattern is as lively as any other, which is what makes the layer a trap: a pattern is not a reading.

`strength` is the factor on that projection; at 1 it is as large as in other blocks. What is planted is the
absence, so the strength of a trial is the share of the projection that is taken away.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import gpt2, word_tokenizer
from layerscope.planted.looks_back import WORDS

_SEED, _SIZE = 0, 0.2


def reads_nothing(*, layer: int = 2, n_layers: int = 4, strength: float = 0.0) -> LayeredModel:
    """The model, of which block `layer`, not the first, reads nothing."""
    tokenizer = word_tokenizer(WORDS)
    model = gpt2(tokenizer, width=64, n_layers=n_layers, n_heads=4)
    generator = torch.Generator().manual_seed(_SEED)
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            parameter.normal_(0, _SIZE, generator=generator)
    model.transformer.h[layer].attn.c_proj.weight.mul_(strength)
    return load_model(model, tokenizer=tokenizer)


def passages(words: Sequence[str], *, number: int = 8, length: int = 24) -> list[str]:
    """Passages of words drawn at random."""
    generator = torch.Generator().manual_seed(_SEED)
    drawn = torch.randint(len(words), (number, length), generator=generator)
    return [" ".join(words[index] for index in row) for row in drawn.tolist()]


TRIALS = (
    Trial(
        experiment="context_reading",
        plants="layer 2 (of 4) reads nothing, though its attention looks about like that of the others",
        model=lambda strength: reads_nothing(strength=1 - strength),
        strength_is="share of that layer's output projection that is taken away",
    ),
    Trial(
        experiment="layer_ablation",
        plants="layer 2 (of 4) reads nothing: its attention can be replaced by its mean without any difference",
        model=lambda strength: reads_nothing(strength=1 - strength),
        answers=(Answer("inert_layer", 2.0, 0.0, {"ablation": "mean attention"}),),
        texts=lambda: {"passages": passages(words=WORDS)},
        strength_is="share of that layer's output projection that is taken away",
    ),
)
