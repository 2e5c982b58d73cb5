"""How the work is cut: attention and MLP of every layer, and the stages that are one piece of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.experiments.weight_directions.settings import ATTENTION, Settings
from layerscope.text.tokens import BosPolicy

_TWIN = 3  # it is made, and its own vocabulary and random directions are rated too
_SINK_TOKENS = 400  # of a few bundled texts
_WORDS = 8e6  # operations that a core does meanwhile, for each token: words, frequencies, parts of speech
_SETS = 1800  # directions that are made of known sets, about; each is rated twice


def of_vocabulary(inputs: Inputs, settings: Settings) -> float:
    """Size of what is asked of the vocabulary."""
    return _WORDS * inputs.facts.vocabulary


def of_random(inputs: Inputs, settings: Settings) -> float:
    """Size of the random directions, which are rated on both sides of the vocabulary."""
    return _rated(inputs, 2 * settings.random_directions)


def of_sets(inputs: Inputs, settings: Settings) -> float:
    """Size of the directions made of known sets."""
    return _rated(inputs, 2 * _SETS)


def a_kind(inputs: Inputs, settings: Settings) -> float:
    """Size of the directions of one kind in one layer: decomposed, rated, and rotated."""
    return _rated(inputs, 2 * settings.directions)


def _rated(inputs: Inputs, directions: float) -> float:
    return inputs.facts.operations(0, logits=directions)


class PartItem(WorkItem):
    """The attention or the MLP of one block."""

    layer: int
    part: str


def one_item(
    name: str, size: Callable[[Inputs, Settings], float]
) -> Callable[[Inputs, Settings, Earlier], Iterator[WorkItem]]:
    """Items of a stage that is one piece of work."""

    def items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[WorkItem]:
        yield WorkItem(name=name, size=size(inputs, settings))

    return items


def items_of_parts(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PartItem]:
    """Attention and MLP of every block."""
    for layer in range(inputs.facts.n_layers):
        for part, size in parts_asked_for(settings):
            yield PartItem(
                name=f"layer {layer} {part}", size=size * a_kind(inputs, settings), layer=layer, part=part
            )


def parts_asked_for(settings: Settings) -> list[tuple[str, float]]:
    """Attention and MLP, as far as any of their kinds is asked for, with how many are."""
    of_attention = sum(kind in ATTENTION for kind in settings.kinds)
    of_mlp = len(settings.kinds) - of_attention
    return [(name, float(n)) for name, n in (("attention", of_attention), ("mlp", of_mlp)) if n]


def items_of_twin(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[WorkItem]:
    """The untrained twin, all of its layers at once, so that it is made once."""
    if settings.untrained_layers:
        share = min(settings.untrained_layers, inputs.facts.n_layers)
        size = _TWIN * share * len(settings.kinds) * a_kind(inputs, settings)
        yield WorkItem(name="untrained twin", size=size)


class SinkItem(WorkItem):
    """A few texts, to be read whole."""

    bos: BosPolicy


def items_of_sinks(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[SinkItem]:
    """One piece of work, where attention is decomposed at all."""
    if set(ATTENTION) & set(settings.kinds):
        size = inputs.facts.operations(_SINK_TOKENS)
        yield SinkItem(name="attention to the first token", size=size, bos=inputs.bos)
