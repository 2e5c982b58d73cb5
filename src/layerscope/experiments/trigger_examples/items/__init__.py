"""How the work is cut: layers, passages of the census, stretches of the corpus, and topics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from layerscope.contract import OPERATIONS_A_SECOND, Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.experiments.trigger_examples.items.units import chosen_units
from layerscope.experiments.trigger_examples.settings import Settings
from layerscope.text.tokenised import TokenisedPassage

_OF_KEYS = (
    0.58  # twice what values and keys are of a layer's weights: a quarter where MLPs are gated, else a third
)
_WATCHED = 2  # watching every key takes as long as the passes themselves
_MOST_TOKENS, _FEWEST_TOKENS = 16_384, 1024


OPERATIONS = 1.5e12
"""Of one item: about half a minute on one processor core."""


class LayerItem(WorkItem):
    """One layer."""

    layer: int


class PassageItem(WorkItem):
    """One passage."""

    passage: TokenisedPassage


def layers(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[LayerItem]:
    """One item for each layer, where the composition of outputs is asked for."""
    for layer in range(inputs.facts.n_layers if settings.composition_tokens else 0):
        size = _OF_KEYS * inputs.facts.operations(inputs.facts.vocabulary, layers=1)
        yield LayerItem(name=f"layer {layer}", size=size, layer=layer)


def census_passages(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PassageItem]:
    """Some passages, spread evenly over all."""
    _refuse_short(inputs, settings)
    places = np.linspace(0, len(inputs.passages) - 1, min(settings.census_passages, len(inputs.passages)))
    for place in np.unique(places.round().astype(int)):
        passage = inputs.passages[place]
        if len(passage.tokens) > settings.first_position:
            size = inputs.facts.operations(_WATCHED * len(passage.tokens))
            yield PassageItem(name=passage.name, size=size, passage=passage)


def _refuse_short(inputs: Inputs, settings: Settings) -> None:
    longest = max(len(passage.tokens) for passage in inputs.passages)
    if longest <= settings.first_position:
        raise LayerscopeError(
            "no token is left to excite a key",
            found=f"the longest passage has {longest} tokens, first_position is {settings.first_position}",
            expected="passages longer than first_position",
            hint="--set first_position=1, or longer passages",
        )


class SearchItem(WorkItem):
    """Some passages, and the number of the first among all."""

    first: int
    passages: tuple[TokenisedPassage, ...]
    tokens_per_pass: int


def search_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[SearchItem]:
    """Passages in order, as many in an item as take about half a minute on one core."""
    chosen_units(earlier["census"], settings)  # refuses before the slow part
    yield from _stretches(inputs)


def expected_search(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Sizes of the stretches, before the census."""
    return (item.size for item in _stretches(inputs))


def _stretches(inputs: Inputs) -> Iterator[SearchItem]:
    wanted = int(np.clip(OPERATIONS / (2 * inputs.facts.n_parameters), _FEWEST_TOKENS, _MOST_TOKENS))
    start, tokens = 0, 0
    for number, passage in enumerate(inputs.passages):
        tokens += len(passage.tokens)
        if tokens >= wanted or number == len(inputs.passages) - 1:
            some = inputs.passages[start : number + 1]
            yield SearchItem(
                name=f"passages {start + 1} to {number + 1}",
                size=inputs.facts.operations(tokens),
                first=start,
                passages=some,
                tokens_per_pass=inputs.tokens_per_pass,
            )
            start, tokens = number + 1, 0


def topic_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[WorkItem]:
    """One piece of work, without the model."""
    yield WorkItem(name="known topics", size=0.5 * OPERATIONS_A_SECOND)
