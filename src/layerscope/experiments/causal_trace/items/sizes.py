"""What the patched runs of one prompt cost, in operations."""

from __future__ import annotations

from collections.abc import Iterable

from layerscope.models.facts import ModelFacts
from layerscope.text.tokenised import TokenisedPrompt


def operations_of_patches(
    facts: ModelFacts, prompt: TokenisedPrompt, samples: int, patches: Iterable[tuple[int, int]] = ()
) -> float:
    """The clean run and every draw of the corrupted one, whole, and patched runs that leave these.

    A patched run carries the tokens from its position on through half of the layers, averaged over depth, and is read
    out once.

    Args:
        facts: of the model.
        prompt: the prompt.
        samples: draws of its corruption.
        patches: positions, and how many patches there are at each, for each draw.
    """
    at = list(patches)
    carried = sum(number * (prompt.n_tokens - position) for position, number in at) / 2
    reads = sum(number for _, number in at)
    whole = (1 + samples) * prompt.n_tokens
    return facts.operations(whole + samples * carried, logits=1 + samples * (1 + reads))
