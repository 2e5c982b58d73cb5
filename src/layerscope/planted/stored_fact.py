"""A model in which the MLP of one layer holds the facts, and a head of a later layer moves them.

A subject's embedding holds who it is, nothing about its answer. At one block, an MLP key for each
subject recognises it and writes the answer, and a mark that there is one, at the subject's own token.
At a later block, a head looks for that mark and copies the answer to every later token. So the answer
crosses to the last token behind the head's block, however early the MLP wrote it: a causal trace of
states finds the head. That the MLP wrote it is seen in its output, which holds the answer at the
subject and nothing elsewhere.

Strength is the factor on the answer that the MLP writes; the mark stays as it is.
"""

from __future__ import annotations

from typing import Any

from transformers import GPT2LMHeadModel

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Trial
from layerscope.planted._writing import gpt2, head_of, silence, word_tokenizer
from layerscope.planted.mover import ANSWERS, OTHERS, SUBJECTS, crossing_at, open_questions

STORED = slice(8, 16)
"""Entries of the residual stream in which the MLP writes the answer, in the order of ANSWERS."""

_IDENTITY, _SAID, _MARK, _OTHER = 0, 16, 24, 25
_WIDTH, _HEADS, _ENTRY = 64, 4, 4.0
_PLANTED_MLP, _PLANTED_HEAD = 1, 2


def stored_fact(*, mlp: int, mover: int, n_layers: int = 4, strength: float = 1.0) -> LayeredModel:
    """The model.

    Args:
        mlp: the block whose MLP holds the facts.
        mover: the block, behind that one, whose head moves them.
        n_layers: blocks in all.
        strength: factor on the answer that the MLP writes.
    """
    tokenizer = word_tokenizer([*SUBJECTS, *ANSWERS, *OTHERS])
    model = gpt2(tokenizer, width=_WIDTH, n_layers=n_layers, n_heads=_HEADS)
    silence(model)
    _write_words(model, tokenizer)
    _write_facts(model.transformer.h[mlp].mlp, strength)
    _write_head(model, mover)
    return load_model(model, tokenizer=tokenizer)


def _write_words(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    embedding, unembedding = model.transformer.wte.weight, model.lm_head.weight
    for index, word in enumerate(SUBJECTS):
        embedding[tokenizer.convert_tokens_to_ids(word), _IDENTITY + index] = _ENTRY
    for index, word in enumerate(ANSWERS):
        unembedding[tokenizer.convert_tokens_to_ids(word), _SAID + index] = 1.0
    for index, word in enumerate(OTHERS):
        embedding[tokenizer.convert_tokens_to_ids(word), _OTHER + index] = _ENTRY


def _write_facts(mlp: Any, strength: float) -> None:
    # Normed, a subject's entry is 7.9; under noise of three SDs about 2.5, which must not be enough.
    for index in range(len(SUBJECTS)):
        mlp.c_fc.weight[_IDENTITY + index, index] = 1.0
        mlp.c_fc.bias[index] = -5.0
        mlp.c_proj.weight[index, STORED.start + index] = 2 * strength
        mlp.c_proj.weight[index, _MARK] = 2.0


def _write_head(model: GPT2LMHeadModel, layer: int) -> None:
    weights = head_of(model, layer, 1)
    weights.query_bias[0] = 10.0
    weights.key[_MARK, 0] = 3.0
    for index in range(len(ANSWERS)):
        weights.value[STORED.start + index, index] = 1.0
        weights.output[index, _SAID + index] = 1.0


TRIALS = (
    Trial(
        experiment="causal_trace",
        plants=f"the L{_PLANTED_MLP} MLP (of 4 layers) writes the fact at the subject, a head of layer "
        f"{_PLANTED_HEAD} moves it to the last token",
        model=lambda strength: stored_fact(mlp=_PLANTED_MLP, mover=_PLANTED_HEAD, strength=strength),
        answers=crossing_at(_PLANTED_HEAD + 0.5),
        texts=open_questions,
        strengths=(1.0, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02),
        strength_is="factor on the answer that the MLP writes",
    ),
)
