"""A model in which the first singular direction of one OV matrix is a set of tokens.

Embeddings and unembeddings are random directions of a fixed seed. One head's OV matrix is the sum of
random values and outputs, whose largest singular value is 1, and of one outer product, orthogonal to
them on both sides: it reads the direction along which all people lie equally far and no other token
does, and writes the one that raises the logits of all colours alike and of no other token. So its first
right direction, turned into logits, is the colours; the others mean nothing.

Strength is a quarter of the singular value of the planted product: 1 stands out fourfold, at 0 only the
random part is left.
"""

from __future__ import annotations

import torch
from torch import Tensor

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Trial
from layerscope.planted._writing import gpt2, head_of, silence, word_tokenizer
from layerscope.planted.mover import ANSWERS, OTHERS, SUBJECTS

PEOPLE, COLOURS = SUBJECTS, ANSWERS
LAYER, HEAD = 1, 2
_WIDTH, _SEED = 64, 0


def token_set(*, n_layers: int = 3, strength: float = 1.0) -> LayeredModel:
    """The model, with the set written by head 2 of block 1."""
    tokenizer = word_tokenizer([*PEOPLE, *COLOURS, *OTHERS])
    model = gpt2(tokenizer, width=_WIDTH, n_layers=n_layers, n_heads=4)
    silence(model)
    generator = torch.Generator().manual_seed(_SEED)
    embedding, unembedding = model.transformer.wte.weight, model.lm_head.weight
    for weights in (embedding, unembedding):
        weights.normal_(generator=generator)
    people, colours = (tokenizer.convert_tokens_to_ids(list(words)) for words in (PEOPLE, COLOURS))
    reads, writes = _direction(embedding, people), _direction(unembedding, colours)
    head = head_of(model, LAYER, HEAD)
    _write_random(head.value[:, 1:], head.output[1:], reads, writes, generator)
    head.value[:, 0], head.output[0] = 4 * strength * reads, writes
    return load_model(model, tokenizer=tokenizer)


def _direction(rows: Tensor, ids: list[int]) -> Tensor:
    """The unit vector whose product is equal with these rows and 0 with all others."""
    wanted = torch.zeros(len(rows))
    wanted[ids] = 1.0
    vector = torch.linalg.pinv(rows) @ wanted
    return vector / vector.norm()


def _write_random(
    value: Tensor, output: Tensor, reads: Tensor, writes: Tensor, generator: torch.Generator
) -> None:
    value.normal_(generator=generator)
    output.normal_(generator=generator)
    value -= torch.outer(reads, reads @ value)
    output -= torch.outer(output @ writes, writes)
    value /= torch.linalg.matrix_norm(value @ output, ord=2)


TRIALS = (
    Trial(
        experiment="weight_directions",
        plants=f"the first direction that OV of head {HEAD} of block {LAYER} (of 3) writes is the eight colours",
        model=lambda strength: token_set(strength=strength),
        strength_is="a quarter of its singular value, in units of the largest meaningless one",
    ),
)
