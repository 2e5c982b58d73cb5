"""A model in which one head of the last tokens looks at the subjects of one category, and not at the other's.

The model is that of `asks_subject`, with the mark on half of the subjects only. So one head gives these all its
attention, and the other half what it gives any token: a difference between categories, in one head of one layer,
that is known to a digit. With the mark on the other half, it points the other way.

Strength is the factor on the nats between a marked subject and anything else; at 0 the head looks at all tokens
alike, and no head differs between categories.
"""

from __future__ import annotations

import math
from typing import Any

from layerscope.planted._trial import Answer, Trial
from layerscope.planted._writing import LOUD
from layerscope.planted.asks_subject import PLANTED_LAYER, SUBJECTS, asks_subject
from layerscope.results.escaping import stored

HERS, HIS = (tuple(sorted(SUBJECTS)[start::2]) for start in range(2))
"""Two halves of the subjects, each of which another trial marks."""
_TEMPLATES = ("the house of my friend {} has a", "my friend has a house that {} was always")


def of_two_halves() -> dict[str, Any]:
    """Prompts of one length without an answer; the subject's half is the category."""
    return {
        "prompts": [
            {
                "id": f"{kind}-{name}-{place}",
                "category": kind,
                "prompt": text.format(name),
                "subject": name,
                "answer": "",
            }
            for kind, names in (("hers", HERS), ("his", HIS))
            for name in names
            for place, text in enumerate(_TEMPLATES)
        ]
    }


def _apart(strength: float) -> float:
    """Logarithm of the share on a marked subject, less that on an unmarked one, over 9 or 10 tokens with BOS."""
    loud = math.exp(LOUD * strength)
    tokens = [1 + len(text.split()) for text in _TEMPLATES]
    return sum(math.log(loud * n / (loud + n - 1)) for n in tokens) / len(tokens)


TRIALS = (
    Trial(
        experiment="final_token_attention",
        plants=f"L{PLANTED_LAYER}H1 (of 4 layers) gives the subject all its attention in one of two categories",
        model=lambda strength: asks_subject(strength=strength, marked=HERS),
        answers=(
            Answer(
                "head_difference",
                _apart,
                0.01,
                {
                    "contrast": stored("hers − his"),
                    "kept_row": "noised tokens",
                    "layer": PLANTED_LAYER,
                    "head": 1,
                },
                nothing=0.0,
                p="head_p_adjusted",
                says="more",
                opposite="less",
            ),
        ),
        texts=of_two_halves,
        strengths=(1.0, 0.5, 0.2, 0.1, 0.05, 0.01),
        strength_is=f"factor on the {LOUD:.0f} nats between a marked subject and any other token",
        opposite=lambda: asks_subject(marked=HIS),
    ),
)
