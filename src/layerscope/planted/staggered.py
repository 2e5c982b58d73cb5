"""A model in which each subject is moved to later tokens at a layer of its own, towns later than people.

Eight people are moved by heads of blocks 1 to 5, eight towns by heads of blocks `later` further on. A
subject's embedding holds who it is and a mark for its block; the one head of each block that writes
looks for that block's mark, and its values know only the subjects of that block. So people cross on
average at a known depth with a known spread, towns exactly `later` blocks behind them: a difference
between categories that must be told from chance.

Strength is `later`, in blocks. At 0 towns have the same blocks as people; below 0 people are moved behind towns.
"""

from __future__ import annotations

from typing import Any

from transformers import GPT2LMHeadModel

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import gpt2, head_of, silence, word_tokenizer

PEOPLE = ("anna", "bert", "cleo", "dora", "emil", "fred", "gina", "hugo")
TOWNS = ("aldby", "borup", "corby", "derby", "esher", "frome", "goole", "hythe")
ANSWERS = (
    "red", "blue", "green", "white", "black", "brown", "pink", "grey", "one", "two", "three", "four",
    "five", "six", "seven", "eight",
)  # fmt: skip
OTHERS = ("we", "saw", "that", "is")
LAYERS = (1, 2, 2, 3, 3, 4, 4, 5)
"""The block that moves each of the eight people."""

_LATEST = 3
_N_LAYERS = max(LAYERS) + _LATEST + 1
_SUBJECTS = (*PEOPLE, *TOWNS)
_IDENTITY, _ANSWER, _OTHER, _MARK = 0, 16, 32, 36
_WIDTH, _HEADS, _ENTRY = 64, 4, 4.0


def staggered(*, later: int) -> LayeredModel:
    """The model, with towns moved `later` blocks behind people (0 to 3), or people behind towns (−3 to 0)."""
    tokenizer = word_tokenizer([*_SUBJECTS, *ANSWERS, *OTHERS])
    model = gpt2(tokenizer, width=_WIDTH, n_layers=_N_LAYERS, n_heads=_HEADS)
    silence(model)
    layers = [layer + max(0, behind) for behind in (-later, later) for layer in LAYERS]
    _write_words(model, tokenizer, layers)
    for index, layer in enumerate(layers):
        _write_head(model, layer, index)
    return load_model(model, tokenizer=tokenizer)


def prompts() -> list[dict[str, str]]:
    """One prompt for each subject, equal but for the subject."""
    return [
        {
            "id": subject,
            "category": "people" if subject in PEOPLE else "towns",
            "prompt": f"we saw {subject} that is",
            "subject": subject,
            "answer": f" {ANSWERS[index]}",
        }
        for index, subject in enumerate(_SUBJECTS)
    ]


def _write_words(model: GPT2LMHeadModel, tokenizer: Any, layers: list[int]) -> None:
    embedding, unembedding = model.transformer.wte.weight, model.lm_head.weight
    for index, word in enumerate(_SUBJECTS):
        row = embedding[tokenizer.convert_tokens_to_ids(word)]
        row[_IDENTITY + index] = row[_MARK + layers[index]] = _ENTRY
        unembedding[tokenizer.convert_tokens_to_ids(ANSWERS[index]), _ANSWER + index] = 1.0
    for index, word in enumerate(OTHERS):
        embedding[tokenizer.convert_tokens_to_ids(word), _OTHER + index] = _ENTRY


def _write_head(model: GPT2LMHeadModel, layer: int, subject: int) -> None:
    weights = head_of(model, layer, 1)
    weights.query_bias[0] = 10.0
    weights.key[_MARK + layer, 0] = 3.0
    weights.value[_IDENTITY + subject, subject] = 1.0
    weights.output[subject, _ANSWER + subject] = 1.0


_PEOPLE_CROSS_AT = sum(LAYERS) / len(LAYERS) + 0.5
TRIALS = (
    Trial(
        experiment="causal_trace",
        plants=f"towns are moved {_LATEST} layers later than people, who cross between depths 1.5 and 5.5",
        model=lambda later: staggered(later=int(later)),
        opposite=lambda: staggered(later=-_LATEST),
        answers=(
            Answer(
                "difference",
                lambda later: -later,
                0.1,
                {"contrast": "people − towns"},
                nothing=0.0,
                p="p_adjusted",
                says="later for towns",
                opposite="later for people",
            ),
        ),
        texts=lambda: {"prompts": prompts()},
        strengths=(_LATEST, 2.0, 1.0),
        strength_is="layers between the categories, 8 prompts each, within which it varies by 1.3 (SD)",
    ),
)
