"""How logit_lens is cut: some passages, or some prompts of equal length, each with another prompt's answer."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from layerscope import runs
from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.evidence.groups import need_late_tokens, packed, prompts_by_length, span_name
from layerscope.experiments.logit_lens.settings import Settings
from layerscope.text.tokenised import TokenisedPassage, TokenisedPrompt

_LENS = 2  # softmax, divergence and ranks take as long as the product with the vocabulary
_PROMPT_READ = 2  # its last position, by the lens and by the logits of its answer


class LensItem(WorkItem):
    """Some passages, or some prompts of equal length."""

    passages: tuple[TokenisedPassage, ...] = ()
    prompts: tuple[TokenisedPrompt, ...] = ()
    others: tuple[int, ...] = Field(
        (), description="another prompt's answer for each prompt; -1 where none is stated"
    )
    tuned: str = Field("", description="sha256 of the tuned lens")


def passage_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[LensItem]:
    """Passages in their order, a few at a time; refused where none is long enough."""
    if not inputs.prompts:
        need_late_tokens((len(passage.tokens) for passage in inputs.passages), settings.first_position)
    digest = _digest(settings)
    for some in packed(inputs.passages, inputs.tokens_per_pass):
        read = settings.positions * len(some)
        size = _size(inputs, sum(len(passage.tokens) for passage in some), read)
        yield LensItem(name=span_name(some), size=size, passages=some, tuned=digest)


def prompt_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[LensItem]:
    """Prompts of equal length together."""
    others = _answers_of_others(inputs.prompts)
    digest = _digest(settings)
    for some in prompts_by_length(inputs.prompts, inputs.tokens_per_pass, inputs.facts.context):
        yield LensItem(
            name=span_name(some),
            size=_size(inputs, sum(prompt.n_tokens for prompt in some), _PROMPT_READ * len(some)),
            prompts=some,
            others=tuple(others[prompt.name] for prompt in some),
            tuned=digest,
        )


def direct_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[LensItem]:
    """The same prompts, to have their answers attributed."""
    if settings.direct:
        for item in prompt_items(inputs, settings, earlier):
            size = inputs.facts.operations(sum(prompt.n_tokens for prompt in item.prompts))
            yield item.model_copy(update={"size": size})


def _size(inputs: Inputs, tokens: int, read: float) -> float:
    """Tokens through the model, and positions that are read at every depth."""
    return inputs.facts.operations(tokens, logits=_LENS * read * (inputs.facts.n_layers + 1))


def _digest(settings: Settings) -> str:
    return runs.lens_digest(settings.tuned) if settings.tuned else ""


def _answers_of_others(prompts: tuple[TokenisedPrompt, ...]) -> dict[str, int]:
    """For each prompt the answer of another of its category, which differs from its own."""
    others: dict[str, int] = {}
    for prompt in prompts:
        mates = [
            mate.answer_ids[0]
            for mate in prompts
            if mate.category == prompt.category
            and not mate.own
            and mate.answer_ids[0] not in prompt.answer_ids[:1]
        ]
        place = len(others) % len(mates) if mates else 0
        others[prompt.name] = mates[place] if mates and not prompt.own else -1
    return others
