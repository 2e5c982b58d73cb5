"""How planted models are written: tokenizers of whole words, silent GPT-2s, heads and keys by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

SPECIAL = ("<bos>", "<unk>")
LOUD = 20.0
"""Nats between the key that a planted head looks for and any other: a share of 1 - 1e-8 falls on it."""


def word_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token for each word, split at blanks, with a BOS that is put first."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel(_vocabulary(words), unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _fast(inner)


def pieces_tokenizer(starts: Iterable[str], continuations: Iterable[str]) -> PreTrainedTokenizerFast:
    """Words split into a start and any number of continuations, which the vocabulary marks by ##."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = _vocabulary([*starts, *(f"##{piece}" for piece in continuations)])
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.decoder = decoders.WordPiece()
    return _fast(inner)


def _vocabulary(words: Iterable[str]) -> dict[str, int]:
    return {word: index for index, word in enumerate([*SPECIAL, *words])}


def _fast(inner: Any) -> PreTrainedTokenizerFast:
    from tokenizers import processors

    inner.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", unk_token="<unk>")


def gpt2(
    tokenizer: Any, *, width: int, n_layers: int, n_heads: int, positions: int = 64, **more: Any
) -> GPT2LMHeadModel:
    """A small GPT-2 with the weights that it happens to be made with."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=width,
        n_layer=n_layers,
        n_head=n_heads,
        n_positions=positions,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.bos_token_id,
        **({"activation_function": "relu"} | more),
    )
    return GPT2LMHeadModel(config).requires_grad_(False)


def silence(model: GPT2LMHeadModel) -> None:
    """Let no part write anything: all weights 0, scales of norms 1.

    Head 0 of block 0 keeps a way to the stream that nothing takes, since its values are 0: the load
    check edits that head, and expects the logits to move.
    """
    for name, parameter in model.named_parameters():
        parameter.fill_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0)
    head_of(model, 0, 0).output[0, -1] = 0.1


@dataclass(frozen=True)
class Head:
    """The weights of one head, as views that can be written to.

    Attributes:
        query, key, value: from the residual stream [width head_width].
        query_bias: a query that every token asks alike [head_width].
        output: to the residual stream [head_width width].
    """

    query: Tensor
    key: Tensor
    value: Tensor
    query_bias: Tensor
    output: Tensor


def head_of(model: GPT2LMHeadModel, layer: int, head: int) -> Head:
    """One head of one block."""
    attention, width = model.transformer.h[layer].attn, model.config.n_embd
    size = width // model.config.n_head
    here = slice(head * size, (head + 1) * size)
    query, key, value = attention.c_attn.weight.split(width, dim=1)
    bias = attention.c_attn.bias[:width]
    return Head(query[:, here], key[:, here], value[:, here], bias[here], attention.c_proj.weight[here])


class Canvas:
    """A silent GPT-2 to write on, with named stretches of the residual stream.

    Every entry is written twice, with opposite signs, in the two halves of the stream. So states have
    mean 0 and layer norm only scales them; and every position carries so long a constant that the scale
    is the same for all states, to a part in a thousand. Weights that read multiply by `scale`, and meet
    entries as they were written.
    """

    def __init__(
        self,
        tokenizer: Any,
        stretches: Mapping[str, int],
        *,
        n_layers: int,
        n_heads: int = 2,
        positions: int = 32,
    ) -> None:
        self.tokenizer = tokenizer
        self.half = -(-(sum(stretches.values()) + 1) // (32 * n_heads)) * 32 * n_heads
        self.model = gpt2(
            tokenizer, width=2 * self.half, n_layers=n_layers, n_heads=n_heads, positions=positions
        )
        silence(self.model)
        ends = torch.tensor(list(stretches.values())).cumsum(0).tolist()
        self._starts = {name: end - stretches[name] for name, end in zip(stretches, ends, strict=True)}
        self.scale = 4.0
        self.write(self.model.transformer.wpe.weight, self.half - 1, self.scale * self.half**0.5)

    def place(self, stretch: str, index: int = 0) -> int:
        """Where an entry of a stretch lies in the first half."""
        return self._starts[stretch] + index

    def write(self, weights: Tensor, place: int, value: float) -> None:
        """Write one entry of the stream, and its opposite in the other half."""
        weights[..., place] = value
        weights[..., place + self.half] = -value

    def embed_words(self, stretch: str) -> None:
        """One entry for each token of the vocabulary."""
        for token in range(len(self.tokenizer)):
            self.write(self.model.transformer.wte.weight[token], self.place(stretch, token), 1.0)

    def embed_positions(self, stretch: str) -> None:
        """One entry for each position."""
        for position, row in enumerate(self.model.transformer.wpe.weight):
            self.write(row, self.place(stretch, position), 1.0)

    def read_out(self, stretch: str, tokens: Iterable[int], *, weight: float = 1.0) -> None:
        """Let entries of a stretch raise the logits of tokens, one each."""
        for index, token in enumerate(tokens):
            self.model.lm_head.weight[token, self.place(stretch, index)] = weight * self.scale

    def copy(self, head: Head, source: str, target: str, count: int, *, weight: float = 1.0) -> None:
        """Let a head bring entries of one stretch, from where it looks, into another."""
        for index in range(count):
            head.value[self.place(source, index), index] = self.scale
            self.write(head.output[index], self.place(target, index), weight)

    def look_back(self, head: Head, stretch: str, by: int, *, nats: float = LOUD) -> None:
        """Let a head look exactly `by` tokens back; the first `by` tokens look at everything alike."""
        positions, size = self.model.config.n_positions, head.query.shape[1]
        for position in range(by, positions):
            head.query[self.place(stretch, position), position - by] = self.scale * nats * size**0.5
        for position in range(positions):
            head.key[self.place(stretch, position), position] = self.scale

    def look_for(self, head: Head, place: int, *, nats: float = LOUD) -> None:
        """Let every token look at those that carry an entry, whatever it is itself."""
        head.query_bias[0] = nats * head.query.shape[1] ** 0.5
        head.key[place, 0] = self.scale

    def key(self, layer: int, index: int, reads: Mapping[int, float], *, threshold: float) -> Tensor:
        """An MLP key: how far a sum of entries exceeds a threshold. Gives what it writes, as a view."""
        mlp = self.model.transformer.h[layer].mlp
        for place, weight in reads.items():
            mlp.c_fc.weight[place, index] = weight * self.scale
        mlp.c_fc.bias[index] = -threshold
        return mlp.c_proj.weight[index]
