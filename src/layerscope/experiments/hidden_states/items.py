"""How hidden_states is cut: a few texts for the mean state, then all passages and all prompts, some at a time."""

from __future__ import annotations

from collections.abc import Iterator

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.evidence.groups import need_late_tokens, packed, prompts_by_length, span_name, spread
from layerscope.experiments.hidden_states.settings import Settings
from layerscope.text.tokenised import TokenisedPassage, TokenisedPrompt


class TextsItem(WorkItem):
    """Some passages, or some prompts."""

    passages: tuple[TokenisedPassage, ...] = ()
    prompts: tuple[TokenisedPrompt, ...] = ()


def centre_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TextsItem]:
    """Texts that give the mean state, one at a time, from all over the passages: the first few may be of one kind."""
    readable = [prompt for prompt in inputs.prompts if _fits(prompt, inputs)]
    lengths = [len(passage.tokens) for passage in inputs.passages]
    need_late_tokens([*lengths, *(prompt.n_tokens for prompt in readable)], settings.first_position)
    passages = [passage for passage in inputs.passages if len(passage.tokens) > settings.first_position]
    prompts = [prompt for prompt in readable if prompt.n_tokens > settings.first_position]
    for place in spread(0, len(passages or prompts), settings.centre_texts):
        if passages:
            text = passages[place]
            yield TextsItem(name=text.name, size=inputs.facts.operations(len(text.tokens)), passages=(text,))
        else:
            prompt = prompts[place]
            yield TextsItem(
                name=prompt.name, size=inputs.facts.operations(prompt.n_tokens), prompts=(prompt,)
            )


def _fits(prompt: TokenisedPrompt, inputs: Inputs) -> bool:
    return inputs.facts.context is None or prompt.n_tokens <= inputs.facts.context


def passage_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TextsItem]:
    """Passages in their order, a few at a time."""
    for some in packed(inputs.passages, inputs.tokens_per_pass):
        size = inputs.facts.operations(sum(len(passage.tokens) for passage in some))
        yield TextsItem(name=span_name(some), size=size, passages=some)


def prompt_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TextsItem]:
    """Prompts of equal length together."""
    for some in prompts_by_length(inputs.prompts, inputs.tokens_per_pass, inputs.facts.context):
        size = inputs.facts.operations(sum(prompt.n_tokens for prompt in some))
        yield TextsItem(name=span_name(some), size=size, prompts=some)
