"""How the work is cut: attention and MLP of every layer, and the stages that are one piece of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.experiments.weight_directions.settings import ATTENTION, Settings
from layerscope.text.tokens import BosPolicy


class PartItem(WorkItem):
    """The attention or the MLP of one block."""

    layer: int
    part: str


def one_item(name: str, size: float) -> Callable[[Inputs, Settings, Earlier], Iterator[WorkItem]]:
    """Items of a stage that is one piece of work."""

    def items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[WorkItem]:
        yield WorkItem(name=name, size=size)

    return items


def items_of_parts(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PartItem]:
    """Attention and MLP of every block."""
    for layer in range(inputs.facts.n_layers):
        for part, size in parts_asked_for(settings):
            yield PartItem(name=f"layer {layer} {part}", size=size, layer=layer, part=part)


def parts_asked_for(settings: Settings) -> list[tuple[str, float]]:
    """Attention and MLP, as far as any of their kinds is asked for, with how many are."""
    of_attention = sum(kind in ATTENTION for kind in settings.kinds)
    of_mlp = len(settings.kinds) - of_attention
    return [(name, float(n)) for name, n in (("attention", of_attention), ("mlp", of_mlp)) if n]


def items_of_twin(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[WorkItem]:
    """The untrained twin, all of its layers at once, so that it is made once."""
    if settings.untrained_layers:
        share = min(settings.untrained_layers, inputs.facts.n_layers)
        yield WorkItem(name="untrained twin", size=float(share * len(settings.kinds)))


class SinkItem(WorkItem):
    """A few texts, to be read whole."""

    bos: BosPolicy


def items_of_sinks(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[SinkItem]:
    """One piece of work, where attention is decomposed at all."""
    if set(ATTENTION) & set(settings.kinds):
        yield SinkItem(name="attention to the first token", size=1.0, bos=inputs.bos)
