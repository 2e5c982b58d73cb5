"""A model in which one head of the last tokens looks at the subject, and nothing else is attended to.

Eight subjects carry a mark. One head of one block looks for the mark, whatever the query, and brings who the
subject is into a stretch that the unembedding reads, so that the model says the subject again. All other
heads look at all tokens alike. So the last token's attention to the subject has one peak over layers, and it
stands in that block.

Strength is the factor on the nats between the mark and anything else; at 0 the head looks at all tokens alike,
and no layer gives the subject more than another.
"""

from __future__ import annotations

from typing import Any

from layerscope.models.layered import LayeredModel
from layerscope.models.load import load_model
from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import LOUD, Canvas, head_of, word_tokenizer

SUBJECTS = ("anna", "bert", "cleo", "dora", "emil", "fred", "gina", "hugo")
OTHERS = ("my", "friend", "has", "a", "coat", "that", "is", "old", "the", "house", "of", "was", "always")
PLANTED_LAYER = 2


def asks_subject(
    *,
    layer: int = PLANTED_LAYER,
    head: int = 1,
    n_layers: int = 4,
    strength: float = 1.0,
    marked: tuple[str, ...] = SUBJECTS,
) -> LayeredModel:
    """The model, with the head that looks for the subject."""
    tokenizer = word_tokenizer([*SUBJECTS, *OTHERS])
    count = len(tokenizer)
    canvas = Canvas(tokenizer, {"word": count, "mark": 1, "found": count}, n_layers=n_layers)
    canvas.embed_words("word")
    mark = canvas.place("mark")
    for word in marked:
        canvas.write(canvas.model.transformer.wte.weight[tokenizer.convert_tokens_to_ids(word)], mark, 1.0)
    weights = head_of(canvas.model, layer, head)
    canvas.look_for(weights, mark, nats=LOUD * strength)
    canvas.copy(weights, "word", "found", count)
    canvas.read_out("found", range(count), weight=8.0)
    return load_model(canvas.model, tokenizer=tokenizer)


def prompts() -> dict[str, Any]:
    """Prompts without an answer, in two categories that differ in where the subject stands."""
    templates = {"near": "the house of my friend {} has a", "far": "my {} has a coat that was always"}
    return {
        "prompts": [
            {
                "id": f"{kind}-{name}",
                "category": kind,
                "prompt": text.format(name),
                "subject": name,
                "answer": "",
            }
            for kind, text in templates.items()
            for name in SUBJECTS
        ]
    }


TRIALS = (
    Trial(
        experiment="final_token_attention",
        plants=f"L{PLANTED_LAYER}H1 (of 4 layers) gives the subject all its attention",
        model=lambda strength: asks_subject(strength=strength),
        answers=tuple(
            Answer("mean_spike", float(PLANTED_LAYER), 0.01, {"category": kind}) for kind in ("near", "far")
        ),
        texts=prompts,
        strengths=(1.0, 0.5, 0.2, 0.1, 0.05, 0.01),
        strength_is=f"factor on the {LOUD:.0f} nats between the subject and any other token",
    ),
)
