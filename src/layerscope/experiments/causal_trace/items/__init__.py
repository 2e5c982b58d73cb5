"""What a causal trace has to run: one prompt, one question, as work items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr
from pydantic import Field

from layerscope import runs
from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.experiments.causal_trace.items.noised import NoisedItem, noised_positions
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.maths.moments import Moments, merge, standard_deviation
from layerscope.maths.sample_size import units_needed
from layerscope.results.escaping import restored, stored
from layerscope.text.constraints import FIRST_NOT_NOISED, broken_constraints, refuse_unfit
from layerscope.text.tokenised import TokenisedPrompt

PILOT_UNITS = 10
_PILOT_DEPTHS = 8
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
    partners = _partners_of(inputs.prompts, settings) if settings.corruption == "replace" else None
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
            size=prompt.n_tokens,
            prompt=prompt,
            unfit="; ".join(reasons),
            runnable=context is None or prompt.n_tokens <= context,
        )


def pilot_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[NoisedItem]:
    """Every prompt that is not left out, under a few draws that say how many it needs."""
    if settings.samples == "auto":
        draws = PILOT_UNITS * settings.together
        for item in _kept_items(inputs, settings, earlier["clean"]):
            depths = len(pilot_depths(inputs.facts.n_layers))
            size = item.prompt.n_tokens * (1 + draws * depths)
            yield item.model_copy(update={"samples": draws, "slots": draws, "size": size})


def pilot_depths(n_layers: int) -> list[int]:
    """A few depths, spread evenly: recovery at neighbouring depths goes together, so they tell what all would."""
    return sorted({round(depth) for depth in np.linspace(0, n_layers - 1, _PILOT_DEPTHS)})


def noised_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[NoisedItem]:
    """Every prompt that is not left out, under all of its draws."""
    draws = _draws_of(settings, earlier)
    slots = max(draws.values(), default=settings.asked_samples)
    for item in _kept_items(inputs, settings, earlier["clean"]):
        samples = draws.get(stored(item.name), slots)
        size = item.prompt.n_tokens * (1 + samples * (inputs.facts.n_layers + 1) / 2)
        yield item.model_copy(update={"samples": samples, "slots": slots, "size": size})


def _draws_of(settings: Settings, earlier: Earlier) -> dict[str, int]:
    """Draws of each prompt by its stored name, where pilot draws fix them."""
    if settings.samples != "auto":
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


def _kept_items(inputs: Inputs, settings: Settings, clean: xr.Dataset) -> Iterator[NoisedItem]:
    """Every prompt that is not left out, as if under one draw."""
    kept = clean.left_out_because.values == ""
    if not kept.any():
        first = restored(clean.left_out_because.values[0])
        raise LayerscopeError(
            "no prompt is left to trace",
            found=f"{len(kept)} prompt{'s' * (len(kept) > 1)}, the first left out because: {first}",
            expected="prompts whose answer is the model's most probable next token, with a subject that is neither "
            "the first nor the last token",
            hint=("--bos always   (puts a token before the first), or " if FIRST_NOT_NOISED in first else "")
            + "layerscope check-prompts FILE --model MODEL",
        )
    size = noise_sd(clean, settings)
    found = {
        name: (int(answer), int(rival))
        for name, answer, rival in zip(
            clean.prompt.values[kept].tolist(),
            clean.answer_id.values[kept],
            clean.rival_id.values[kept],
            strict=True,
        )
    }
    partners = _partners_of(inputs.prompts, settings) if settings.corruption == "replace" else {}
    for prompt in inputs.prompts:
        if stored(prompt.name) not in found:
            continue
        answer, rival = found[stored(prompt.name)]
        more = prompt.answer_ids[1:] if settings.answer == "all" else ()
        yield NoisedItem(
            name=prompt.name,
            size=prompt.n_tokens,
            prompt=prompt,
            answer=(answer, *more),
            rival=rival,
            sd=size,
            tokens_per_pass=inputs.tokens_per_pass,
            partners=partners.get(prompt.name, ()),
            samples=1,
            slots=1,
        )


def noise_sd(clean: xr.Dataset, settings: Settings) -> float:
    """The size of the noise in units of the residual stream (covariance-matched: the factor on its SDs)."""
    if settings.corruption == "replace":
        return 0.0
    if not isinstance(settings.noise, str):
        return float(settings.noise)
    factor = float(settings.noise.removesuffix("sd"))
    if settings.corruption == "covariance":
        return factor
    moments = Moments()
    rows = zip(
        clean.subject_entries.values, clean.subject_mean.values, clean.subject_squares.values, strict=True
    )
    for count, mean, squares in rows:
        moments = merge(moments, Moments(int(count), float(mean), float(squares)))
    return factor * standard_deviation(moments)


def _partners_of(
    prompts: Sequence[TokenisedPrompt], settings: Settings
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """For each prompt, token ids of other subjects of as many tokens: its own partner, or drawn ones.

    Subjects of the same category come first, in an order drawn from a named stream; blanks before the subject
    must agree, or the replaced text would not be one that a tokenizer writes.
    """
    subjects = [_subject(prompt) for prompt in prompts]
    found: dict[str, tuple[tuple[int, ...], ...]] = {}
    for prompt, (ids, blank) in zip(prompts, subjects, strict=True):
        if prompt.prompt.partner:
            found[prompt.name] = (prompt.partner_ids,) if prompt.partner_ids else ()
            continue
        alike = [
            (
                other.category != prompt.category,
                runs.draw_number(settings.seed, "partner", prompt.text, *other_ids),
                other_ids,
            )
            for other, (other_ids, other_blank) in zip(prompts, subjects, strict=True)
            if len(other_ids) == len(ids) and other_ids != ids and other_blank == blank
        ]
        distinct = dict.fromkeys(other_ids for *_, other_ids in sorted(alike))
        found[prompt.name] = tuple(distinct)[: settings.asked_samples]
    return found


def _subject(prompt: TokenisedPrompt) -> tuple[tuple[int, ...], bool]:
    ids = tuple(prompt.tokens.ids[position] for position in prompt.noised)
    return ids, prompt.tokens.texts[prompt.noised[0]][:1].isspace()


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
        carried = sum(item.prompt.n_tokens - position for position in positions)
        yield TraceItem(
            **item.model_dump(exclude={"size", "prompt"}),
            prompt=item.prompt,
            size=(item.prompt.n_tokens + carried * per_position / 2) * item.samples,
            positions=positions,
        )


def screen_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[NoisedItem]:
    """Every prompt, whole: one backward pass serves all of its cells."""
    if settings.screen:
        for item in noised_items(inputs, settings, earlier):
            passes = inputs.facts.n_layers * item.samples * item.prompt.n_tokens
            yield item.model_copy(update={"size": item.size + passes})
