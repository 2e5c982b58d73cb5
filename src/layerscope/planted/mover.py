"""A model in which one head at one layer moves the subject's identity to every later token.

Eight subjects, eight answers. A subject's embedding holds who it is and a mark that it is a subject.
One head looks for the mark, whatever the query, and copies who it is into the answer's directions;
every other head and every MLP writes nothing. So restoring the subject's state brings the answer back
at depths up to that layer, restoring the last token's at depths beyond it, and no other state at any
depth: the transition lies exactly half a block behind the layer's input.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model

SUBJECTS = ("anna", "bert", "cleo", "dora", "emil", "fred", "gina", "hugo")
ANSWERS = ("red", "blue", "green", "white", "black", "brown", "pink", "grey")
OTHERS = ("my", "friend", "has", "a", "coat", "that", "is", "old", "the", "house", "of", "was", "always")

_IDENTITY, _ANSWER, _MARK, _OTHER = 0, 8, 16, 17
_WIDTH, _HEADS = 64, 4
_STRENGTH = 4.0


def mover(*, layer: int, n_layers: int = 6, head: int = 1) -> LayeredModel:
    """The model, loaded and checked like any other.

    Args:
        layer: the block whose head moves the identity.
        n_layers: blocks in all.
        head: which head of that block.
    """
    tokenizer = word_tokenizer([*SUBJECTS, *ANSWERS, *OTHERS])
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=_WIDTH,
        n_layer=n_layers,
        n_head=_HEADS,
        n_positions=64,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.bos_token_id,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        _silence(model)
        _write_words(model, tokenizer)
        _write_head(model.transformer.h[layer].attn, head)
    return load_model(model, tokenizer=tokenizer)


def prompts_about(subjects: tuple[str, ...] = SUBJECTS) -> list[dict[str, str]]:
    """Prompts that the model gets right, in two categories that differ in nothing it uses."""
    near = "my friend {} has a coat that is"
    far = "the house of my old friend {} has always a coat that was the old"
    return [
        {
            "id": f"{kind}-{subject}",
            "category": kind,
            "prompt": template.format(subject),
            "subject": subject,
            "answer": f" {ANSWERS[SUBJECTS.index(subject)]}",
        }
        for kind, template in (("near", near), ("far", far))
        for subject in subjects
    ]


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """One token for each word, split at blanks, with a BOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: index for index, word in enumerate(["<bos>", "<unk>", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", unk_token="<unk>")


def _silence(model: GPT2LMHeadModel) -> None:
    for name, parameter in model.named_parameters():
        is_scale = ".ln_" in name and name.endswith("weight")
        parameter.fill_(1.0 if is_scale else 0.0)


def _write_words(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    embedding, unembedding = model.transformer.wte.weight, model.lm_head.weight
    for index, word in enumerate(SUBJECTS):
        row = embedding[tokenizer.convert_tokens_to_ids(word)]
        row[_IDENTITY + index] = row[_MARK] = _STRENGTH
    for index, word in enumerate(ANSWERS):
        unembedding[tokenizer.convert_tokens_to_ids(word), _ANSWER + index] = 1.0
    for index, word in enumerate(OTHERS):
        embedding[tokenizer.convert_tokens_to_ids(word), _OTHER + index] = _STRENGTH


def _write_head(attention: Any, head: int) -> None:
    size = _WIDTH // _HEADS
    first = head * size
    attention.c_attn.bias[first] = 10.0  # every query asks for the mark
    attention.c_attn.weight[_MARK, _WIDTH + first] = 3.0
    for index in range(len(SUBJECTS)):
        attention.c_attn.weight[_IDENTITY + index, 2 * _WIDTH + first + index] = 1.0
        attention.c_proj.weight[first + index, _ANSWER + index] = 1.0
