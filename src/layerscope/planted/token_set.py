"""A model in which the first singular direction of one OV matrix is a set of tokens.

Embeddings and unembeddings are random directions of a fixed seed. One head's OV matrix is the sum of
random values and outputs, whose largest singular value is 1, and of one outer product, orthogonal to
them on both sides: it reads the direction along which all people lie equally far and no other token
does, and writes the one that raises the logits of all colours alike and of no other token. So its first
right direction, turned into logits, is the colours; the others mean nothing.

Strength is a quarter of the singular value of the planted product: 1 stands out fourfold, at 0 only the
random part is left. `token_sets` plants many sets in the same way, enough for a rate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
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


KINDS = ("bird", "coin", "dance", "drink", "flower", "river", "stone", "tool")
EACH, SET_HEADS, SET_LAYER = 12, (1, 2), 1


def members(kind: str) -> list[str]:
    """The words of a kind."""
    return [f"{kind}-{number}" for number in range(EACH)]


def token_sets(*, strength: float = 1.0) -> LayeredModel:
    """A model of 3 blocks in which two of four heads of block 1 write eight sets of tokens each.

    Words of a kind lie close in the embedding, and nowhere else is anything to be found: unembeddings are
    orthonormal, all other OV directions random and orthogonal to the planted ones. The first words of a
    kind are raised most, so that mixtures of sets hang together less than sets do. With heads of 32
    directions, of which the leading quarter is looked at, the planted ones are half of the block's.

    Args:
        strength: a quarter of the largest planted singular value; the largest random one is 1.
    """
    tokenizer = word_tokenizer(
        [word for kind in KINDS for word in members(kind)] + [f"word-{n}" for n in range(24)]
    )
    model = gpt2(tokenizer, width=128, n_layers=3, n_heads=4)
    silence(model)
    generator = torch.Generator().manual_seed(_SEED)
    embedding, unembedding = model.transformer.wte.weight, model.lm_head.weight
    embedding.normal_(generator=generator)
    unembedding.copy_(_orthonormal(128, generator)[: len(unembedding)])
    weights = torch.linspace(1.0, 0.3, EACH)
    writes = torch.zeros(len(KINDS), 128)
    for row, kind in enumerate(KINDS):
        ids = tokenizer.convert_tokens_to_ids(members(kind))
        embedding[ids] += torch.randn(128, generator=generator)
        writes[row] = weights @ unembedding[ids] / weights.norm()
    scales = 4 * strength * (1 - 0.05 * torch.arange(len(KINDS)))
    for layer in range(3):
        for number in range(4):
            head = head_of(model, layer, number)
            planted = layer == SET_LAYER and number in SET_HEADS
            reads = _orthonormal(128, generator)[: len(KINDS)]
            start = len(KINDS) if planted else 0
            value, output = head.value[:, start:], head.output[start:]
            value.normal_(generator=generator)
            output.normal_(generator=generator)
            if planted:
                value -= reads.T @ (reads @ value)
                output -= (output @ writes.T) @ writes
                head.value[:, :start], head.output[:start] = reads.T * scales, writes
            value /= torch.linalg.matrix_norm(value @ output, ord=2)
    return load_model(model, tokenizer=tokenizer)


def _orthonormal(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator))[0]


TRIALS = (
    Trial(
        experiment="weight_directions",
        plants="of the leading directions that heads of layer 1 (of 3) write, half are sets of words of one kind",
        model=lambda strength: token_sets(strength=strength),
        answers=(
            Answer(
                "lift",
                # Of the other half, as many as of random directions: a share of .05.
                expected=0.475,
                tolerance=0.08,
                labels={"kind": "OV writes", "layer": SET_LAYER, "rater": "own embedding"},
                nothing=0.0,
            ),
        ),
        strengths=(1.0, 0.5, 0.4, 0.3),
        strength_is="a quarter of the largest planted singular value, in units of the largest meaningless one",
    ),
)
