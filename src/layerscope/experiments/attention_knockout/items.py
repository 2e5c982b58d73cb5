"""What attention_knockout runs: texts for the mean values, targets in passages, and whole prompts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from pydantic import Field

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.batches import in_turn
from layerscope.evidence.distances import ends_of_ranges, far_targets, longest_first, longest_passage
from layerscope.evidence.groups import prompts_by_length, span_name
from layerscope.experiments.attention_knockout.settings import Settings
from layerscope.text.constraints import broken_constraints
from layerscope.text.tokenised import TokenisedPassage, TokenisedPrompt

_OPERATIONS_AN_ITEM = 2e12
_PROMPTS_AN_ITEM, _PASSAGES_AN_ITEM = 32, 16

SUBJECT, OTHERS, FIRST = "the subject", "other tokens", "first token"
PROMPT_SETS = (SUBJECT, OTHERS, FIRST)


class ValuesItem(WorkItem):
    """Texts of one length whose values are added up."""

    texts: tuple[tuple[int, ...], ...]


class PassageItem(WorkItem):
    """Some targets of one passage."""

    passage: TokenisedPassage
    targets: tuple[int, ...]
    ends: tuple[int, ...]
    listed: bool = Field(description="whether this item lists the passage: the first of its items does")
    left_out: str = Field(description="why the passage is left out, or empty")
    tokens_per_pass: int


class PromptsItem(WorkItem):
    """Some prompts of one length, and why some of them are unfit."""

    prompts: tuple[TokenisedPrompt, ...]
    of: int = Field(description="prompts that were given")
    unfit: tuple[str, ...]
    tokens_per_pass: int


def in_layers(widths: tuple[float, ...], n_layers: int) -> tuple[int, ...]:
    """Widths of windows: below 1 shares of all layers, else layers; none twice, in their order."""
    found = [max(1, round(width * n_layers)) if width < 1 else int(width) for width in widths]
    return tuple(dict.fromkeys(found))


def names_of_sets(ends: tuple[int, ...], ranges: list[str]) -> list[str]:
    """The ranges of distance, everything beyond all but the last end, and the first token."""
    return [*ranges, *(f"{end} back and more" for end in ends[:-1]), FIRST]


def passage_sets(target: int, ends: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Keys of each set, in the order of `names_of_sets`. The first token is in the last set alone."""

    def between(near: int, far: int) -> tuple[int, ...]:  # distances near .. far - 1
        return tuple(range(max(1, target - far + 1), target - near + 1))

    bands = [between(near, far) for near, far in pairwise((1, *ends))]
    beyond = [between(end, target) for end in ends]
    return (*bands, beyond[-1], *beyond[:-1], (0,))


def prompt_sets(prompt: TokenisedPrompt) -> tuple[tuple[int, ...], ...]:
    """Keys of the subject, of what is neither subject, first nor last, and of the first token."""
    others = set(range(1, prompt.last)) - set(prompt.noised)
    return tuple(prompt.noised), tuple(sorted(others)), (0,)


def value_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[ValuesItem]:
    """Every text that is cut, where removed attention may be kept on mean values."""
    if "mean" not in settings.fates:
        return
    passages = longest_first(inputs.passages, settings.cut_passages)
    texts = [passage.tokens.ids for passage in passages if len(passage.tokens) > 1]
    for start in range(0, len(texts), _PASSAGES_AN_ITEM):
        some = texts[start : start + _PASSAGES_AN_ITEM]
        size = inputs.facts.operations(sum(len(ids) for ids in some))
        yield ValuesItem(name=f"{len(some)} passages", size=size, texts=tuple(some))
    for batch in prompts_by_length(
        prompts_in_turn(inputs, settings), inputs.tokens_per_pass, inputs.facts.context
    ):
        ids = tuple(prompt.tokens.ids for prompt in batch if prompt.n_tokens > 1)
        if ids:
            size = inputs.facts.operations(len(ids) * len(ids[0]))
            yield ValuesItem(name=f"{len(ids)} prompts", size=size, texts=ids)


def prompts_in_turn(inputs: Inputs, settings: Settings) -> list[TokenisedPrompt]:
    """Prompts that are cut: the first of every category, then the second of every one, and so on."""
    return in_turn(inputs.prompts, lambda prompt: prompt.category)[: settings.cut_prompts]


def _size_of_target(inputs: Inputs, settings: Settings, sets: int) -> float:
    """Operations: every cut run goes through half of the layers on average."""
    facts = inputs.facts
    cells = sets * (len(settings.fates) + settings.draws) * len(settings.windows) * facts.n_layers
    return cells * facts.operations(1, layers=facts.n_layers / 2, logits=1)


def passage_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PassageItem]:
    """The longest passages, each with its targets, a few at a time where the model is large."""
    if not inputs.passages:
        return
    ends = ends_of_ranges(settings.ranges, longest_passage(inputs), behind=1)
    each = _size_of_target(inputs, settings, 2 * len(ends) + 1)
    at_once = max(1, int(_OPERATIONS_AN_ITEM / each))
    for passage in longest_first(inputs.passages, settings.cut_passages):
        # The last token has no next token whose probability could be read.
        targets = far_targets(len(passage.tokens) - 1, ends[-1], settings.targets)
        left_out = "" if targets else f"too short: {len(passage.tokens)} tokens"
        for start in range(0, max(1, len(targets)), at_once):
            some = targets[start : start + at_once]
            yield PassageItem(
                name=passage.name,
                size=inputs.facts.operations(len(passage.tokens)) + each * len(some),
                passage=passage,
                targets=some,
                ends=ends,
                listed=start == 0,
                left_out=left_out,
                tokens_per_pass=inputs.tokens_per_pass,
            )


def prompt_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PromptsItem]:
    """All prompts, a few at a time."""
    context = inputs.facts.context
    each = _size_of_target(inputs, settings, len(PROMPT_SETS))
    at_once = min(_PROMPTS_AN_ITEM, max(1, int(_OPERATIONS_AN_ITEM / each)))
    lengths = [
        some[start : start + at_once]
        for some in prompts_by_length(prompts_in_turn(inputs, settings), inputs.tokens_per_pass, context)
        for start in range(0, len(some), at_once)
    ]
    if inputs.prompts and not lengths:
        raise LayerscopeError(
            "no prompt fits the model",
            found=f"{len(inputs.prompts)} prompts, the shortest of {min(p.n_tokens for p in inputs.prompts)} tokens",
            expected=f"at most {context} tokens",
            hint="shorter prompts",
        )
    for some in lengths:
        unfit = tuple(_unfit(prompt, context) for prompt in some)
        yield PromptsItem(
            name=span_name(some),
            size=inputs.facts.operations(sum(prompt.n_tokens for prompt in some)) + each * unfit.count(""),
            prompts=some,
            of=len(inputs.prompts),
            unfit=unfit,
            tokens_per_pass=inputs.tokens_per_pass,
        )


def _unfit(prompt: TokenisedPrompt, context: int | None) -> str:
    """Why a prompt is not cut, or empty."""
    return "; ".join(
        f"{broken.name}: {broken.detail}" for broken in broken_constraints(prompt, context=context)
    )
