"""How logit_lens is cut: some passages, or some prompts of equal length, each with another prompt's answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from layerscope import runs
from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.batches import in_turn
from layerscope.evidence.groups import need_late_tokens, packed, prompts_by_length, span_name
from layerscope.experiments.logit_lens.settings import Settings
from layerscope.results.escaping import restored
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
    _refuse_unknown_names(inputs, settings)
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


def shown_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[LensItem]:
    """The prompts that are shown whole: those that were named, or the first of each category that the model gets right.

    Where too few are right, wrong ones follow.
    """
    if not settings.shown or not inputs.prompts:
        return
    ranks = earlier["prompts"]
    last = {
        restored(str(name)): int(rank)
        for name, rank in zip(ranks.prompt.values, ranks.prompt_rank.values[:, 0, -1], strict=True)
    }
    read = [prompt for prompt in inputs.prompts if prompt.name in last]
    yield from _shown(inputs, settings, sorted(read, key=lambda prompt: last[prompt.name] > 1))


def expected_shown(inputs: Inputs, settings: Settings) -> list[float]:
    """Sizes before anything is measured, as if every answer were right."""
    return [item.size for item in _shown(inputs, settings, inputs.prompts)]


def _shown(inputs: Inputs, settings: Settings, prompts: Sequence[TokenisedPrompt]) -> Iterator[LensItem]:
    """Of prompts in the order in which they come into question."""
    if isinstance(settings.shown, int):
        right_first = in_turn(prompts, lambda prompt: prompt.category)
        chosen = right_first[: settings.shown]
    else:
        chosen = [prompt for prompt in prompts if prompt.name in settings.shown]
    for prompt in chosen:
        read = min(settings.shown_positions, prompt.n_tokens)
        size = _size(inputs, prompt.n_tokens, read)
        yield LensItem(name=prompt.name, size=size, prompts=(prompt,))


def _refuse_unknown_names(inputs: Inputs, settings: Settings) -> None:
    if isinstance(settings.shown, int):
        return
    known = {prompt.name for prompt in inputs.prompts}
    if unknown := [name for name in settings.shown if name not in known]:
        raise LayerscopeError(
            "a prompt that is to be shown is not among the prompts",
            found=unknown[0],
            expected=f"names such as {', '.join(list(known)[:3]) or '(there are no prompts)'}",
            hint="--set shown=4, or a name that `layerscope check-prompts` prints",
        )


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
