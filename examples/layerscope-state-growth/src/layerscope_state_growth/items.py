"""How the work is cut: one passage at a time."""

from __future__ import annotations

from collections.abc import Iterator

from layerscope import LayerscopeError
from layerscope.contract import Earlier, Inputs, TokenisedPassage, WorkItem
from layerscope_state_growth.settings import Settings


class PassageItem(WorkItem):
    """One passage, as the model reads it."""

    passage: TokenisedPassage


def one_per_passage(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PassageItem]:
    """Every passage that has tokens to average over."""
    _refuse_too_few_layers(inputs.facts.n_layers, settings)
    longest = max((len(passage.tokens) for passage in inputs.passages), default=0)
    if longest <= settings.first_position:
        raise LayerscopeError(
            "no token is left to average over",
            found=f"the longest passage has {longest} tokens, first_position is {settings.first_position}",
            expected="passages longer than first_position",
            hint="--set first_position=1, or longer passages",
        )
    for passage in inputs.passages:
        if len(passage.tokens) > settings.first_position:
            size = inputs.facts.operations(len(passage.tokens))
            yield PassageItem(name=passage.name, size=size, passage=passage)


def _refuse_too_few_layers(n_layers: int, settings: Settings) -> None:
    if n_layers <= 2 * settings.leave_out_ends:
        raise LayerscopeError(
            "this model has too few layers for a rate without its ends",
            found=f"{n_layers} layers, leave_out_ends is {settings.leave_out_ends}",
            expected=f"more than {2 * settings.leave_out_ends} layers",
            hint="--set leave_out_ends=0",
        )
