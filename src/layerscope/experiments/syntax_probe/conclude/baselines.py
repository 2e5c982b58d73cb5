"""What word types predict without any state, by counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from layerscope.evidence.probing import scored
from layerscope.experiments.syntax_probe.items.design import Design
from layerscope.maths.probe_scores import backed_off, label_frequencies

_LAST_POSITION = 31
"""Words farther on in their sentence count as standing here."""


def baselines(design: Design, draw: int) -> dict[str, np.ndarray]:
    """Log probabilities of the true label, and whether the likeliest is right, without any state.

    Returns:
        "type" and "type and position", each [2 task tested]: −log p in nats, and 1 where right; NaN where
        a word has no label.
    """
    learnt, tested = design.learnt(draw), design.tested
    found: dict[str, list[Any]] = {"type": [], "type and position": []}
    positions = np.minimum(design.position, _LAST_POSITION)
    pairs = list(zip(design.types.tolist(), positions.tolist(), strict=True))
    for task, labels in zip(design.tasks, design.labels, strict=True):
        prior = label_frequencies(labels[learnt], len(task.classes))
        types = design.types.tolist()
        by_type = backed_off(
            [types[w] for w in learnt], labels[learnt], [types[w] for w in tested], prior[None]
        )
        by_both = backed_off([pairs[w] for w in learnt], labels[learnt], [pairs[w] for w in tested], by_type)
        found["type"].append(scored(by_type, labels[tested]))
        found["type and position"].append(scored(by_both, labels[tested]))
    return {name: np.stack(rows, axis=1) for name, rows in found.items()}
