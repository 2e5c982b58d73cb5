"""What a causal trace has to run: one prompt, one question, as work items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import Field

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.experiments.causal_trace.items.kept import kept_items, partners_of
from layerscope.experiments.causal_trace.items.noised import NoisedItem, noised_positions
from layerscope.experiments.causal_trace.items.sizes import operations_of_patches
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.maths.sample_size import units_needed
from layerscope.results.escaping import stored
from layerscope.text.constraints import broken_constraints, refuse_unfit
from layerscope.text.tokenised import TokenisedPrompt

PILOT_UNITS = 10
_PILOT_DEPTHS = 8
_BACKWARD = 2  # a backward pass takes two forward passes' operations
_OPERATIONS_A_MINUTE = 1e13  # two modest cores; only decides how a prompt is cut into items


class PromptItem(WorkItem):
    """One prompt, to be run clean."""

    prompt: TokenisedPrompt
    unfit: str = Field(description="why it cannot be traced, or empty")
    runnable: bool = Field(description="whether the model can read it at all")


class TraceItem(NoisedItem):
    """Some positions of one prompt, to be restored at every depth."""

    positions: tuple[int, ...]


def clean_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PromptItem]:
    """Every prompt once."""
    context = inputs.facts.context
    if settings.unfit == "refuse":
        refuse_unfit(inputs.prompts, context=context)
    first_of: dict[tuple[object, ...], str] = {}
    partners = partners_of(inputs.prompts, settings) if settings.corruption == "replace" else None
    for prompt in inputs.prompts:
        broken = broken_constraints(prompt, context=context)
        twin = first_of.setdefault((prompt.tokens.ids, prompt.noised, prompt.answer_ids), prompt.name)
        reasons = [f"{constraint.name}: {constraint.detail}" for constraint in broken]
        if twin != prompt.name:
            reasons.append(f"the same prompt as {twin}, which would count twice")
        if partners is not None and not partners[prompt.name]:
            reasons.append(prompt.partner_problem or "no other prompt has a subject of as many tokens")
        yield PromptItem(
            name=prompt.name,
            size=inputs.facts.operations(prompt.n_tokens, logits=1),
            prompt=prompt,
            unfit="; ".join(reasons),
            runnable=context is None or prompt.n_tokens <= context,
        )


def pilot_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[NoisedItem]:
    """Every prompt that is not left out, under a few draws that say how many it needs."""
    if settings.samples == "auto":
        draws = PILOT_UNITS * settings.together
        for item in kept_items(inputs, settings, earlier["clean"]):
            depths = len(pilot_depths(inputs.facts.n_layers))
            places = (noised_positions(item.prompt, settings)[0], item.prompt.last)
            patches = [(position, depths) for position in places]
            size = operations_of_patches(inputs.facts, item.prompt, draws, patches)
            yield item.model_copy(update={"samples": draws, "slots": draws, "size": size})


def pilot_depths(n_layers: int) -> list[int]:
    """A few depths, spread evenly: recovery at neighbouring depths goes together, so they tell what all would."""
    return sorted({round(depth) for depth in np.linspace(0, n_layers - 1, _PILOT_DEPTHS)})


def noised_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[NoisedItem]:
    """Every prompt that is not left out, under all of its draws."""
    draws = _draws_of(settings, earlier)
    slots = max(draws.values(), default=settings.asked_samples or PILOT_UNITS * settings.together)
    for item in kept_items(inputs, settings, earlier["clean"]):
        samples = draws.get(stored(item.name), slots)
        noised = noised_positions(item.prompt, settings)
        together = [(noised[0], inputs.facts.n_layers)] if len(noised) > 1 else []
        size = operations_of_patches(inputs.facts, item.prompt, samples, together)
        yield item.model_copy(update={"samples": samples, "slots": slots, "size": size})


def _draws_of(settings: Settings, earlier: Earlier) -> dict[str, int]:
    """Draws of each prompt by its stored name, where pilot draws fix them."""
    if settings.samples != "auto" or "pilot_spread" not in earlier["pilot"]:
        return {}
    pilot = earlier["pilot"]
    units = [
        units_needed(
            float(spread),
            pilots=PILOT_UNITS,
            half_width=settings.precision,
            level=settings.level,
            most=settings.most_samples // settings.together,
        )
        for spread in pilot.pilot_spread.max("pilot_row", skipna=False).values
    ]
    return {
        name: number * settings.together
        for name, number in zip(pilot.prompt.values.tolist(), units, strict=True)
    }


def depths_that_matter(item: NoisedItem, position: int, settings: Settings, n_layers: int) -> range:
    """Depths at which exchanging a token's state can change anything; elsewhere it is the base run.

    Before the first noised token all states agree already. At depth 0 only noised tokens differ.
    After the last block only the tokens that are read out matter.
    """
    noised = noised_positions(item.prompt, settings)
    if position < noised[0]:
        return range(0)
    first = 0 if position in noised else 1
    return range(first, n_layers + (position == item.prompt.last))


def rows_of(item: NoisedItem, settings: Settings) -> tuple[int, ...]:
    """The noised tokens and the last one."""
    return (*noised_positions(item.prompt, settings), item.prompt.last)


def trace_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TraceItem]:
    """Every prompt, cut by positions into pieces of at most about a minute."""
    n_layers = inputs.facts.n_layers
    for item in noised_items(inputs, settings, earlier):
        yield from _in_pieces(item, _traced_alone(item, settings), settings, inputs, per_position=n_layers)


def _traced_alone(item: NoisedItem, settings: Settings) -> Sequence[int]:
    """Tokens whose states are exchanged one at a time.

    Rows need no more than the last one where several are noised: the noised stage has exchanged those
    together. A screen's estimates are of single states, and are judged by them.
    """
    if settings.positions == "all":
        return range(item.prompt.n_tokens)
    if settings.screen or len(noised_positions(item.prompt, settings)) == 1:
        return rows_of(item, settings)
    return (item.prompt.last,)


def output_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TraceItem]:
    """Positions at which attention and MLP outputs are restored."""
    if settings.outputs == "no":
        return
    for item in noised_items(inputs, settings, earlier):
        noised = noised_positions(item.prompt, settings)
        everything = range(noised[0], item.prompt.n_tokens)
        wanted = everything if settings.outputs == "all" else rows_of(item, settings)
        yield from _in_pieces(item, wanted, settings, inputs, per_position=2 * inputs.facts.n_layers)


def severed_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TraceItem]:
    """The subject's last token and the prompt's last token."""
    if settings.severed:
        yield from _two_tokens(inputs, settings, earlier, per_position=2 * inputs.facts.n_layers)


def head_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TraceItem]:
    """The subject's last token and the prompt's last token."""
    if settings.heads:
        yield from _two_tokens(inputs, settings, earlier, per_position=16 * inputs.facts.n_layers)


def one_by_one_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TraceItem]:
    """Each token of a subject of several."""
    if settings.one_by_one:
        for item in noised_items(inputs, settings, earlier):
            wanted = noised_positions(item.prompt, settings)
            if len(wanted) > 1:
                yield from _in_pieces(item, wanted, settings, inputs, per_position=3 * inputs.facts.n_layers)


def dose_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[NoisedItem]:
    """Every prompt, at all doses."""
    if settings.doses:
        for item in noised_items(inputs, settings, earlier):
            yield item.model_copy(update={"size": item.size * 2 * len(settings.doses)})


def _two_tokens(
    inputs: Inputs, settings: Settings, earlier: Earlier, *, per_position: int
) -> Iterator[TraceItem]:
    for item in noised_items(inputs, settings, earlier):
        wanted = (noised_positions(item.prompt, settings)[-1], item.prompt.last)
        yield from _in_pieces(item, wanted, settings, inputs, per_position=per_position)


def _in_pieces(
    item: NoisedItem, wanted: Sequence[int], settings: Settings, inputs: Inputs, *, per_position: int
) -> Iterator[TraceItem]:
    operations = inputs.facts.n_parameters * item.prompt.n_tokens * per_position * item.samples
    at_once = max(1, int(_OPERATIONS_A_MINUTE / operations))
    for start in range(0, len(wanted), at_once):
        positions = tuple(wanted[start : start + at_once])
        first = noised_positions(item.prompt, settings)[0]
        patches = [(position, per_position) for position in positions if position >= first]
        yield TraceItem(
            **item.model_dump(exclude={"size", "prompt"}),
            prompt=item.prompt,
            size=operations_of_patches(inputs.facts, item.prompt, item.samples, patches),
            positions=positions,
        )


def screen_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[NoisedItem]:
    """Every prompt, whole: one backward pass serves all of its cells."""
    if settings.screen:
        for item in noised_items(inputs, settings, earlier):
            backward = inputs.facts.operations(_BACKWARD * item.samples * item.prompt.n_tokens)
            yield item.model_copy(update={"size": item.size + backward})
