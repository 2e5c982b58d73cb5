"""How layer_ablation is cut: passages that give means, then passages whose layers are ablated, one at a time."""

from __future__ import annotations

from collections.abc import Iterator

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.evidence.groups import need_late_tokens, spread
from layerscope.experiments.layer_ablation.settings import Settings
from layerscope.text.tokenised import TokenisedPassage


class PassageItem(WorkItem):
    """One passage."""

    passage: TokenisedPassage


class AblatedItem(PassageItem):
    """One passage whose layers are ablated."""

    tokens_per_pass: int


def mean_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PassageItem]:
    """Passages that give the mean of what attention and MLP add, spread over all that are long enough."""
    need_late_tokens((len(passage.tokens) for passage in inputs.passages), max(1, settings.first_position))
    for passage in _spread_over(inputs, settings, settings.mean_passages):
        size = inputs.facts.operations(len(passage.tokens))
        yield PassageItem(name=passage.name, size=size, passage=passage)


def ablated_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[AblatedItem]:
    """Passages whose layers are ablated, likewise."""
    for passage in _spread_over(inputs, settings, settings.ablated_passages):
        tokens = min(len(passage.tokens), settings.tokens) * inputs.facts.n_layers * len(settings.ablations)
        size = inputs.facts.operations(tokens, layers=inputs.facts.n_layers / 2, logits=tokens)
        yield AblatedItem(
            name=passage.name, size=size, passage=passage, tokens_per_pass=inputs.tokens_per_pass
        )


def _spread_over(inputs: Inputs, settings: Settings, count: int) -> list[TokenisedPassage]:
    enough = [passage for passage in inputs.passages if len(passage.tokens) > max(1, settings.first_position)]
    return [enough[place] for place in spread(0, len(enough), count)]
