"""The written directions that are removed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.experiments.weight_directions.items.power import headline, power_variables
from layerscope.experiments.weight_directions.settings import (
    LANGUAGE,
    OWN,
    RATERS,
    SINGULAR,
    WRITES,
    Settings,
)
from layerscope.text.tokens import BosPolicy


class EditItem(WorkItem):
    """One written direction that is removed."""

    layer: int
    kind: str
    matrix: str
    rank: int
    tokens: tuple[int, ...]
    bos: BosPolicy


def expected_edits(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Sizes before directions are known."""
    kinds = [kind for kind in WRITES if kind in settings.kinds]
    each = settings.edits // len(kinds) if kinds else 0
    return (_size(inputs, settings) for _ in range(each * len(kinds)))


def _size(inputs: Inputs, settings: Settings) -> float:
    """Texts read with a direction and without it, and with a random one removed."""
    tokens = 3 * settings.edit_texts * settings.edit_tokens
    return inputs.facts.operations(tokens, logits=tokens)


def items_of_edits(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[EditItem]:
    """The most coherent directions that single matrices write, as many of heads as of MLPs."""
    found = earlier["directions"]
    if not found.sizes.get("direction"):
        return
    rater, _ = headline(power_variables(earlier["power"], earlier["random"], settings), settings)
    place = RATERS.index(rater if rater != LANGUAGE else OWN)
    best = found.coherence.values[:, :, place].max(
        axis=1, initial=-np.inf, where=~np.isnan(found.coherence.values[:, :, place])
    )
    matrix = found.direction_matrix.values
    usable = (found.origin.values == SINGULAR) & np.isfinite(best) & ~np.char.startswith(matrix, "expert")
    kinds = [kind for kind in WRITES if kind in settings.kinds]
    for kind in kinds:
        here = np.flatnonzero(usable & (found.direction_kind.values == kind))
        for row in here[np.argsort(-best[here], kind="stable")][: settings.edits // len(kinds)]:
            layer, rank, name = (
                int(found.direction_layer.values[row]),
                int(found["rank"].values[row]),
                str(matrix[row]),
            )
            yield EditItem(
                name=f"without {kind} {name} {rank} of layer {layer}",
                size=_size(inputs, settings),
                layer=layer,
                kind=kind,
                matrix=name,
                rank=rank,
                tokens=tuple(int(token) for token in found.top_token.values[row].ravel()),
                bos=inputs.bos,
            )
