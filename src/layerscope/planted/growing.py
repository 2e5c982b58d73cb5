"""A model whose residual stream grows at a known rate, by the same factor at every block.

Words are orthogonal directions of equal length, and positions write nothing. Layer norm makes every
state equally long, so a block that is to lengthen a state by a share must know how long the state is;
here it does, since a word's length at each depth is known. Each MLP is linear (a pair of rectifiers per
word) and writes every word's own direction, as long as it must be.

Words differ: each grows at its own rate, spread evenly round the planted one (SD 2 % per block), and
passages are words drawn at random. So passages vary, and the mean rate has an honest interval.

Strength is the rate, as growth per block. At 0 words grow and shrink, and there is no growth to claim.
"""

from __future__ import annotations

from functools import partial
from statistics import NormalDist

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import gpt2, silence, word_tokenizer

WORDS = tuple(f"{first}{second}" for first in "bdfgkl" for second in "aeiou")
"""Thirty words that mean nothing."""

_WIDTH, _N_LAYERS = 64, 8
_LENGTH = 8.0
_SPREAD = 0.02
_SHUFFLE, _DIRECTIONS = 1, 2


def growing(*, rate: float, n_layers: int = _N_LAYERS) -> LayeredModel:
    """The model, whose states grow by `rate` per block on average over words (in the geometric mean)."""
    tokenizer = word_tokenizer(WORDS)
    model = gpt2(tokenizer, width=_WIDTH, n_layers=n_layers, n_heads=2, layer_norm_epsilon=1e-9)
    silence(model)
    directions = _directions(len(tokenizer))
    model.transformer.wte.weight.copy_(_LENGTH * directions)
    model.lm_head.weight.copy_(directions)
    rates = (1 + rate) * word_rates(len(tokenizer)).exp() - 1
    for layer in range(n_layers):
        _write_growth(model, layer, directions, rates)
    return load_model(model, tokenizer=tokenizer)


def word_rates(vocabulary: int) -> Tensor:
    """Each token's own log growth per block, less the planted one: quantiles of a normal, shuffled.

    They sum to 0 exactly. BOS and the unknown word take no part.
    """
    words = vocabulary - 2
    normal = NormalDist(0, _SPREAD)
    quantiles = torch.tensor([normal.inv_cdf((index + 0.5) / words) for index in range(words)])
    order = torch.randperm(words, generator=torch.Generator().manual_seed(_SHUFFLE))
    return torch.cat([torch.zeros(2), quantiles[order]])


def passages(*, seed: int = 0, number: int = 12, words: int = 24) -> list[str]:
    """Passages of words drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(WORDS), (number, words), generator=generator)
    return [" ".join(WORDS[index] for index in row) for row in drawn.tolist()]


def _directions(count: int) -> Tensor:
    """Orthonormal rows whose entries sum to 0, so that layer norm only scales them."""
    drawn = torch.randn(_WIDTH, count, generator=torch.Generator().manual_seed(_DIRECTIONS))
    centred = drawn.double() - drawn.double().mean(dim=0)
    return torch.linalg.qr(centred).Q.T.float()


def _write_growth(model: GPT2LMHeadModel, layer: int, directions: Tensor, rates: Tensor) -> None:
    mlp, count = model.transformer.h[layer].mlp, len(directions)
    length = _LENGTH * (1 + rates) ** layer
    written = (rates * length / _WIDTH**0.5)[:, None] * directions  # a normed state is sqrt(width) long
    for sign, keys in ((1.0, slice(0, count)), (-1.0, slice(count, 2 * count))):
        mlp.c_fc.weight[:, keys] = sign * directions.T
        mlp.c_proj.weight[keys] = sign * written


TRIALS = (
    Trial(
        experiment="hidden_states",
        plants="the residual stream grows by 5 % per layer, single words by 5 % ± 2 %",
        model=lambda rate: growing(rate=rate),
        answers=(Answer("growth_rate", float, 0.005, nothing=0.0, says="grows", opposite="shrinks"),),
        opposite=lambda: growing(rate=-0.05),
        texts=partial(dict, passages=passages()),
        strengths=(0.05, 0.01, 0.005, 0.0025, 0.001),
        strength_is="growth per layer; 12 passages of 24 words",
    ),
)
