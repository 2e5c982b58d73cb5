"""How first_token_attention is cut: one passage, and what may stand in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.experiments.first_token_attention.settings import Settings

_FEWEST_POSITIONS = 8
_RUNS = 3  # with the token that stands first, without, and with another


class TextItem(WorkItem):
    """One passage without BOS, and what may stand in front of it."""

    passage: str
    first: int | None = Field(description="the token that stands first in this model's texts")
    body: tuple[int, ...]
    other: int = Field(description="the token that is put first in place of BOS")
    positions: int = Field(description="positions of the longest text, for all items alike")


def text_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TextItem]:
    """The longest passages, in their order.

    Raises:
        LayerscopeError: none of them is long enough.
    """
    bodies = {p.name: p.tokens.ids[p.tokens.bos :] for p in inputs.passages}
    longest = sorted(bodies, key=lambda name: -len(bodies[name]))[: settings.texts]
    chosen = {name: bodies[name] for name in bodies if name in set(longest)}
    room = (inputs.facts.context or 10**9) - 1
    positions = min(max(len(body) for body in chosen.values()), room) + 1
    if positions < _FEWEST_POSITIONS:
        raise LayerscopeError(
            "no passage is long enough to follow attention along it",
            found=f"the longest has {positions - 1} tokens",
            expected="at least seven tokens, and better hundreds",
            hint="--longest 800 with long passages",
        )
    first = next((p.tokens.ids[0] for p in inputs.passages if p.tokens.bos), None)
    pool = sorted({token for body in bodies.values() for token in body})
    for number, (name, body) in enumerate(chosen.items()):
        chance = np.random.default_rng([settings.seed, number])
        yield TextItem(
            name=name,
            size=inputs.facts.operations(_RUNS * len(body)),
            passage=name,
            first=first,
            body=body[:room],
            other=int(chance.choice(pool)),
            positions=positions,
        )
