"""Which prompts a causal trace keeps, and how large the noise is: what follows from the clean runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier, Inputs, Stage, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.experiments.causal_trace.items.noised import NoisedItem
from layerscope.experiments.causal_trace.settings import Settings
from layerscope.maths.moments import Moments, merge, standard_deviation
from layerscope.results.escaping import restored, stored
from layerscope.results.schema import GROWS
from layerscope.text.constraints import FIRST_NOT_NOISED, broken_constraints
from layerscope.text.tokenised import TokenisedPrompt


def on_kept(
    name: str,
    items: Callable[[Inputs, Settings, Earlier], Iterable[WorkItem]],
    measure: Callable[..., xr.Dataset],
    *,
    along: str = "",
) -> Stage:
    """A stage that runs the prompts that are kept; sizes are expected as if three of four prompts were.

    Two small real models keep 63 % and 82 % of the English set; models that know more keep more.

    Args:
        name, items, measure: of the stage.
        along: the dimension along which its parts grow, where that is its own.
    """

    def expected(inputs: Inputs, settings: Settings) -> Iterator[float]:
        some = inputs.model_copy(
            update={"prompts": tuple(p for n, p in enumerate(inputs.prompts) if n % 4 != 3)}
        )
        return (item.size for item in items(some, settings, {"clean": xr.Dataset(), "pilot": xr.Dataset()}))

    return Stage(name, items, measure, along=(along,) if along else GROWS, expected=expected)


def kept_items(inputs: Inputs, settings: Settings, clean: xr.Dataset) -> Iterator[NoisedItem]:
    """Every prompt that is not left out, as if under one draw; before there are clean runs, all that can be read."""
    if "left_out_because" not in clean:
        for prompt in inputs.prompts:
            if not broken_constraints(prompt, context=inputs.facts.context):
                yield _under_one_draw(inputs, prompt, answer=prompt.answer_ids[:1], rival=-1, sd=0.0)
        return
    kept = clean.left_out_because.values == ""
    _refuse_none(kept, clean)
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
    partners = partners_of(inputs.prompts, settings) if settings.corruption == "replace" else {}
    for prompt in inputs.prompts:
        if stored(prompt.name) in found:
            answer, rival = found[stored(prompt.name)]
            more = prompt.answer_ids[1:] if settings.answer == "all" else ()
            others = partners.get(prompt.name, ())
            yield _under_one_draw(
                inputs, prompt, answer=(answer, *more), rival=rival, sd=size, partners=others
            )


def _under_one_draw(inputs: Inputs, prompt: TokenisedPrompt, **known: Any) -> NoisedItem:
    """Its size is known with the number of draws."""
    return NoisedItem(
        name=prompt.name,
        size=1.0,
        prompt=prompt,
        tokens_per_pass=inputs.tokens_per_pass,
        samples=1,
        slots=1,
        **known,
    )


def _refuse_none(kept: np.ndarray, clean: xr.Dataset) -> None:
    if kept.any():
        return
    first = restored(clean.left_out_because.values[0])
    raise LayerscopeError(
        "no prompt is left to trace",
        found=f"{len(kept)} prompt{'s' * (len(kept) > 1)}, the first left out because: {first}",
        expected="prompts whose answer is the model's most probable next token, with a subject that is neither "
        "the first nor the last token",
        hint=("--bos always   (puts a token before the first), or " if FIRST_NOT_NOISED in first else "")
        + "layerscope check-prompts FILE --model MODEL",
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


def partners_of(
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
