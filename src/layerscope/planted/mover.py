"""A model in which one head at one layer moves the subject's identity to every later token.

Eight subjects, eight answers. A subject's embedding holds who it is and a mark that it is a subject.
One head looks for the mark, whatever the query, and copies who it is into the answer's directions;
every other head and every MLP writes nothing. So restoring the subject's state brings the answer back
at depths up to that layer, restoring the last token's at depths beyond it, and no other state at any
depth: the transition lies exactly half a block behind the layer's input.

Strength is the factor on what the head writes. Without it the model says the same whoever the subject.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from transformers import GPT2LMHeadModel

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import gpt2, head_of, silence, word_tokenizer

SUBJECTS = ("anna", "bert", "cleo", "dora", "emil", "fred", "gina", "hugo")
ANSWERS = ("red", "blue", "green", "white", "black", "brown", "pink", "grey")
OTHERS = ("my", "friend", "has", "a", "coat", "that", "is", "old", "the", "house", "of", "was", "always")

_IDENTITY, _ANSWER, _MARK, _OTHER = 0, 8, 16, 17
_WIDTH, _HEADS = 64, 4
_ENTRY = 4.0
_PLANTED_LAYER = 2


def mover(*, layer: int, n_layers: int = 6, head: int = 1, strength: float = 1.0) -> LayeredModel:
    """The model, loaded and checked like any other.

    Args:
        layer: the block whose head moves the identity.
        n_layers: blocks in all.
        head: which head of that block; head 0 of block 0 is not free.
        strength: factor on what the head writes.
    """
    tokenizer = word_tokenizer([*SUBJECTS, *ANSWERS, *OTHERS])
    model = gpt2(tokenizer, width=_WIDTH, n_layers=n_layers, n_heads=_HEADS, activation_function="gelu_new")
    silence(model)
    _write_words(model, tokenizer)
    _write_head(model, layer, head, strength)
    return load_model(model, tokenizer=tokenizer)


def prompts_about(subjects: Sequence[str] = SUBJECTS) -> list[dict[str, str]]:
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


def open_questions() -> dict[str, Any]:
    """Prompts without an answer: the model's own top-1 is traced.

    So nothing is left out for being wrong, and at strength 0 it is the trace that must see that the
    answer does not depend on the subject.
    """
    return {"prompts": [prompt | {"answer": ""} for prompt in prompts_about(SUBJECTS[:4])]}


def _write_words(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    embedding, unembedding = model.transformer.wte.weight, model.lm_head.weight
    for index, word in enumerate(SUBJECTS):
        row = embedding[tokenizer.convert_tokens_to_ids(word)]
        row[_IDENTITY + index] = row[_MARK] = _ENTRY
    for index, word in enumerate(ANSWERS):
        unembedding[tokenizer.convert_tokens_to_ids(word), _ANSWER + index] = 1.0
    for index, word in enumerate(OTHERS):
        embedding[tokenizer.convert_tokens_to_ids(word), _OTHER + index] = _ENTRY


def _write_head(model: GPT2LMHeadModel, layer: int, head: int, strength: float) -> None:
    weights = head_of(model, layer, head)
    weights.query_bias[0] = 10.0  # every query asks for the mark
    weights.key[_MARK, 0] = 3.0
    for index in range(len(SUBJECTS)):
        weights.value[_IDENTITY + index, index] = 1.0
        weights.output[index, _ANSWER + index] = strength


def direct_effect(strength: float) -> float:
    """What the head writes to the logit of the right answer, less what it writes to that of another, by hand.

    The subject's state holds two entries of 4; normed, its identity is (4 - 1/8) over their deviation, and the other
    identities -1/8 over it. All are copied; the final norm divides by the deviation of that beside the last word's 4.
    """
    deviation = math.sqrt(2 * _ENTRY**2 / _WIDTH - (2 * _ENTRY / _WIDTH) ** 2)
    own, other = (_ENTRY - 2 * _ENTRY / _WIDTH) / deviation, -2 * _ENTRY / _WIDTH / deviation
    written = [strength * own, *[strength * other] * (len(ANSWERS) - 1), _ENTRY]
    mean, square = sum(written) / _WIDTH, sum(entry**2 for entry in written) / _WIDTH
    return strength * (own - other) / math.sqrt(square - mean**2)


def crossing_at(depth: float) -> tuple[Answer, ...]:
    """What a causal trace must say of `open_questions` when all cross at one depth, by one route."""
    return (
        Answer("mean_transition", depth, 0.05, {"category": "near"}),
        Answer("mean_transition", depth, 0.05, {"category": "far"}),
        Answer("mean_routed_elsewhere", 0.0, 0.02),
    )


TRIALS = (
    Trial(
        experiment="causal_trace",
        plants=f"L{_PLANTED_LAYER}H1 (of 4 layers) moves the subject's identity to the last token",
        model=lambda strength: mover(layer=_PLANTED_LAYER, n_layers=4, strength=strength),
        answers=crossing_at(_PLANTED_LAYER + 0.5),
        texts=open_questions,
        strengths=(1.0, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02),
        strength_is="factor on what the head writes",
    ),
    Trial(
        experiment="logit_lens",
        plants=f"L{_PLANTED_LAYER}H1 (of 4 layers) alone writes the answer: it leads from depth 3 on",
        model=lambda strength: mover(layer=_PLANTED_LAYER, n_layers=4, strength=strength),
        answers=tuple(
            Answer(variable, _PLANTED_LAYER + 1.0, 0.01, {"group": f"prompts: {kind}", "lens": "logit lens"})
            for variable in ("first_leads", "settled")
            for kind in ("near", "far")
        )
        + tuple(
            Answer(
                "head_beyond_other",
                direct_effect,
                0.02,
                {"answered": kind, "layer": _PLANTED_LAYER, "head": 1},
                nothing=0.0,
                p="head_beyond_other_p_adjusted",
                says="raises",
            )
            for kind in ("near", "far")
        ),
        texts=lambda: {"prompts": prompts_about(SUBJECTS)},
        strengths=(1.0, 0.3, 0.1, 0.03),
        strength_is="factor on what the head writes",
    ),
    Trial(
        experiment="attention_knockout",
        plants=f"the last token reads the subject in layer {_PLANTED_LAYER} (of 4) alone",
        model=lambda strength: mover(layer=_PLANTED_LAYER, n_layers=4, strength=strength),
        answers=tuple(
            Answer("subject_centroid", float(_PLANTED_LAYER), 0.01, {"category": kind})
            for kind in ("near", "far")
        ),
        texts=open_questions,
        strengths=(1.0, 0.3, 0.1, 0.03),
        strength_is="factor on what the head writes",
    ),
)
