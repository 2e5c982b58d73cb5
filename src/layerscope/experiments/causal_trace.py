"""Which states carry the subject's information to the answer, and where does it cross to the last token?

The subject's tokens are blurred by Gaussian noise, so that the model loses the answer. Then, for every
token and every depth, the clean state is put back there alone, and the answer's probability is read
again: recovery is 0 where that changes nothing and 1 where it brings the clean probability back. Early
in depth the noised tokens' own states do it; late, the last token's. The transition layer is the depth
where the two rows change places for the last time. Where several tokens are noised, their row restores
them together, so that it starts at 1 for every prompt.

Every noise draw is kept. Draws are averaged before the ratio, prompts last, with bootstrap intervals
over prompts. Prompts that the model gets wrong are left out and listed, and so are prompts on which
noise changes too little for a ratio to mean anything.

Beware: noise takes the model off the text that it was trained on; a restored state that recovers the
answer is sufficient in this setting, which does not make it the place where a fact is stored (Hase et
al. 2023); and probability hides states that speak against the answer (Zhang & Nanda 2023).

Source: Kinniment 2022, "Recall and Regurgitation in GPT2"; Meng et al. 2022, "Locating and Editing
Factual Associations in GPT", section 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field, field_validator

from layerscope import runs
from layerscope.errors import LayerscopeError
from layerscope.experiments import _trace_claims, _trace_figures, _tracing
from layerscope.experiments._contract import Claim, Earlier, ExperimentSettings, Inputs, Stage, WorkItem
from layerscope.experiments._coordinates import (
    depth_coordinate,
    prompt_coordinates,
    prompt_token_coordinates,
)
from layerscope.experiments._summaries import as_curve
from layerscope.maths.moments import Moments, merge, moments_of, standard_deviation
from layerscope.results.schema import quantity
from layerscope.results.words import restored, stored
from layerscope.text.constraints import broken_constraints, clean_constraint, refuse_unfit
from layerscope.text.tokenised import TokenisedPrompt

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

TAKES = {"prompts"}


class Settings(ExperimentSettings):
    """Choices of a causal trace."""

    noise: float | str = Field(
        "3sd",
        description="SD of the noise in units of the residual stream (0.5 is the post's), or in SDs of the "
        "embedding entries of all subjects given ('3sd' is ROME's), which suits models of any scale",
    )
    samples: int = Field(10, gt=0, description="noise draws per prompt; every one is kept")
    noised: Literal["subject", "last"] = Field(
        "subject", description="noise on all tokens of the subject (ROME), or on its last one only (the post)"
    )
    metric: Literal["probability", "log_probability"] = Field(
        "probability", description="what recovery is a ratio of; both are saved"
    )
    smallest_range: float | None = Field(
        None,
        gt=0,
        description="prompts whose metric falls by less under noise are left out of averages; by default 0.05 of "
        "probability, or 0.5 nat of log-probability",
    )
    unfit: Literal["refuse", "leave out"] = Field(
        "refuse",
        description="what to do with prompts whose subject is the first or last token, or that are too long",
    )
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(2000, gt=0, description="bootstrap resamples of prompts")

    @field_validator("noise", mode="before")
    @classmethod
    def _noise_is_positive(cls, noise: float | str) -> float | str:
        if isinstance(noise, str):
            written = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:sd)?\s*", noise)
            if written is None or float(written[1]) <= 0:
                raise ValueError("a positive number, or one with sd behind it, such as 3sd")
            return noise.strip() if noise.strip().endswith("sd") else float(written[1])
        if not noise > 0 or not np.isfinite(noise):
            raise ValueError("a positive number, or one with sd behind it, such as 3sd")
        return noise


class PromptItem(WorkItem):
    """One prompt, to be run clean."""

    prompt: TokenisedPrompt
    unfit: str = Field(description="why it cannot be traced, or empty")
    runnable: bool = Field(description="whether the model can read it at all")


class NoisedItem(WorkItem):
    """One prompt, to be run under every noise draw."""

    prompt: TokenisedPrompt
    answer: int
    sd: float
    tokens_per_pass: int


class TraceItem(NoisedItem):
    """Some positions of one prompt, to be restored at every depth."""

    positions: tuple[int, ...]


# -- the clean run: what the model says, and how large embeddings are ---------------------------


def _clean_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PromptItem]:
    context = inputs.facts.context
    if settings.unfit == "refuse":
        refuse_unfit(inputs.prompts, context=context)
    first_of: dict[tuple[object, ...], str] = {}
    for prompt in inputs.prompts:
        broken = broken_constraints(prompt, context=context)
        twin = first_of.setdefault((prompt.tokens.ids, prompt.noised, prompt.answer_ids), prompt.name)
        reasons = [f"{constraint.name}: {constraint.detail}" for constraint in broken]
        if twin != prompt.name:
            reasons.append(f"the same prompt as {twin}, which would count twice")
        yield PromptItem(
            name=prompt.name,
            size=prompt.n_tokens,
            prompt=prompt,
            unfit="; ".join(reasons),
            runnable=context is None or prompt.n_tokens <= context,
        )


def _clean(model: LayeredModel, item: PromptItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    prompt, reason = item.prompt, item.unfit
    if not item.runnable:
        return _clean_dataset(prompt, None, "", "", Moments(), reason)
    answer = runs.answer_of(model, prompt.tokens.ids, None if prompt.own else prompt.answer_ids[0])
    top, text = (model.tokenizer.decode([token]) for token in (answer.top, answer.token))
    right = clean_constraint(
        prompt,
        top1_id=answer.top,
        top1_text=top,
        rank=answer.rank,
        probability=float(np.exp(answer.log_probability)),
    )
    if not reason and not right.holds:
        reason = right.detail
    contributions = runs.token_contributions(model, prompt.tokens.ids)[list(prompt.noised)].cpu().numpy()
    return _clean_dataset(prompt, answer, top, text, moments_of(contributions), reason)


def _clean_dataset(
    prompt: TokenisedPrompt, answer: runs.Answer | None, top: str, text: str, moments: Moments, reason: str
) -> xr.Dataset:
    log_probability = answer.log_probability if answer else np.nan
    notes = (prompt.prompt.note, prompt.note)
    return xr.Dataset(
        {
            "clean_log_probability": quantity(
                [log_probability], "prompt", "log-probability of the answer, clean", "nat"
            ),
            "clean_probability": quantity(
                [np.exp(log_probability)], "prompt", "probability of the answer, clean"
            ),
            "answer_rank": quantity([answer.rank if answer else 0], "prompt", "rank of the answer, clean"),
            "answer_id": quantity([answer.token if answer else -1], "prompt", "token id of the answer"),
            "answer_text": quantity([stored(text)], "prompt", "the answer's token"),
            "answer_tokens": quantity(
                [len(prompt.answer_ids) or 1], "prompt", "tokens of the answer; the first is read"
            ),
            "top_text": quantity([stored(top)], "prompt", "the model's most probable token"),
            "own": quantity([prompt.own], "prompt", "whether the model's own top-1 is traced"),
            "subject_entries": quantity([moments.count], "prompt", "embedding entries of the subject"),
            "subject_mean": quantity([moments.mean], "prompt", "mean embedding entry of the subject"),
            "subject_squares": quantity(
                [moments.squares], "prompt", "sum of squared deviations of those entries"
            ),
            "note": quantity(
                [stored("; ".join(filter(None, notes)))], "prompt", "what was done differently, or empty"
            ),
            "left_out_because": quantity([stored(reason)], "prompt", "why the prompt is left out, or empty"),
        },
        coords=prompt_coordinates(prompt),
    )


# -- the noised run: how much is lost -----------------------------------------------------------


def _noised_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[NoisedItem]:
    clean = earlier["clean"]
    kept = clean.left_out_because.values == ""
    if not kept.any():
        raise LayerscopeError(
            "no prompt is left to trace",
            found=f"{len(kept)} prompts, the first left out because: {restored(clean.left_out_because.values[0])}",
            expected="prompts whose answer is the model's most probable next token",
            hint="layerscope check-prompts FILE --model MODEL",
        )
    sd = noise_sd(clean, settings)
    answers = dict(
        zip(clean.prompt.values[kept].tolist(), clean.answer_id.values[kept].tolist(), strict=True)
    )
    for prompt in inputs.prompts:
        if stored(prompt.name) in answers:
            yield NoisedItem(
                name=prompt.name,
                size=prompt.n_tokens * (1 + settings.samples * (inputs.facts.n_layers + 1)),
                prompt=prompt,
                answer=answers[stored(prompt.name)],
                sd=sd,
                tokens_per_pass=inputs.tokens_per_pass,
            )


def noise_sd(clean: xr.Dataset, settings: Settings) -> float:
    """The noise's standard deviation in units of the residual stream."""
    if not isinstance(settings.noise, str):
        return float(settings.noise)
    moments = Moments()
    rows = zip(
        clean.subject_entries.values, clean.subject_mean.values, clean.subject_squares.values, strict=True
    )
    for count, mean, squares in rows:
        moments = merge(moments, Moments(int(count), float(mean), float(squares)))
    return float(settings.noise.removesuffix("sd")) * standard_deviation(moments)


def _noised(model: LayeredModel, item: NoisedItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    positions, samples = noised_positions(item.prompt, settings), range(settings.samples)
    nothing = [runs.Restoration(sample) for sample in samples]
    subject = [runs.Restoration(s, positions, depth) for depth in range(model.n_layers) for s in samples]
    values = _patched(model, item, settings, nothing + subject).reshape(model.n_layers + 1, settings.samples)
    # After the last block only the last token is read, so restoring others there is the noised run.
    restored_subject = np.concatenate([values[1:], values[:1]])
    return xr.Dataset(
        {
            "noised_log_probability": quantity(
                values[:1], "prompt sample", "log-probability of the answer under noise", "nat"
            ),
            "subject_log_probability": quantity(
                restored_subject[None],
                "prompt depth sample",
                "log-probability of the answer with all noised tokens restored together",
                "nat",
            ),
        },
        coords=prompt_coordinates(item.prompt) | {"depth": depth_coordinate(model.n_layers)},
    )


def noised_positions(prompt: TokenisedPrompt, settings: Settings) -> tuple[int, ...]:
    """Where noise falls."""
    return prompt.noised if settings.noised == "subject" else prompt.noised[-1:]


def _patched(model: LayeredModel, item: NoisedItem, settings: Settings, wanted: list[Any]) -> np.ndarray:
    prompt = item.prompt
    positions = noised_positions(prompt, settings)
    noise = runs.gaussian_noise(
        settings.seed,
        prompt=prompt.text,
        positions=positions,
        samples=settings.samples,
        width=model.facts.width,
        sd=item.sd,
    )
    values = runs.restored_log_probabilities(
        model,
        prompt.tokens.ids,
        wanted,
        noise=noise,
        noised=positions,
        clean=runs.read_states(model, prompt.tokens.ids),
        answer=item.answer,
        tokens_per_pass=item.tokens_per_pass,
    )
    return values.numpy()


# -- the trace: every token, every depth --------------------------------------------------------

_OPERATIONS_A_MINUTE = 3e12  # two modest cores; only decides how a prompt is cut into items


def _trace_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TraceItem]:
    depths = inputs.facts.n_layers + 1
    for item in _noised_items(inputs, settings, earlier):
        prompt = item.prompt
        one_position = prompt.n_tokens * depths * settings.samples
        at_once = max(1, int(_OPERATIONS_A_MINUTE / (2 * inputs.facts.n_parameters * one_position)))
        for start in range(0, prompt.n_tokens, at_once):
            positions = tuple(range(start, min(start + at_once, prompt.n_tokens)))
            cells = sum(len(_depths_that_matter(item, p, settings, inputs.facts.n_layers)) for p in positions)
            yield TraceItem(
                **item.model_dump(exclude={"size", "prompt"}),
                prompt=prompt,
                size=prompt.n_tokens * (1 + cells * settings.samples),
                positions=positions,
            )


def _depths_that_matter(item: NoisedItem, position: int, settings: Settings, n_layers: int) -> range:
    """Depths at which restoring a token can change anything; elsewhere the run is the noised run.

    Before the first noised token all states are clean already. At depth 0 only noised tokens differ.
    After the last block only the last token is read.
    """
    noised = noised_positions(item.prompt, settings)
    if position < noised[0]:
        return range(0)
    first = 0 if position in noised else 1
    return range(first, n_layers + (position == item.prompt.last))


def _trace(model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    earlier_noised = earlier["noised"]
    here = earlier_noised.prompt.values == stored(item.prompt.name)
    noised_run = earlier_noised.noised_log_probability.values[here][0]
    cells = [
        (row, depth)
        for row, position in enumerate(item.positions)
        for depth in _depths_that_matter(item, position, settings, model.n_layers)
    ]
    wanted = [
        runs.Restoration(sample, (item.positions[row],), depth)
        for row, depth in cells
        for sample in range(settings.samples)
    ]
    values = np.tile(noised_run, (len(item.positions), model.n_layers + 1, 1))
    if cells:
        rows, depths = np.array(cells).T
        values[rows, depths] = _patched(model, item, settings, wanted).reshape(len(cells), settings.samples)
    return xr.Dataset(
        {
            "restored_log_probability": quantity(
                values, "token depth sample", "log-probability of the answer with one state restored", "nat"
            )
        },
        coords=prompt_token_coordinates(item.prompt, item.positions, noised_positions(item.prompt, settings))
        | {"depth": depth_coordinate(model.n_layers)},
    )


STAGES = (
    Stage("clean", items=_clean_items, measure=_clean),
    Stage("noised", items=_noised_items, measure=_noised),
    Stage("trace", items=_trace_items, measure=_trace),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Recovery, rows by category, transitions and contrasts, from the saved samples alone."""
    return _tracing.conclude(stages, settings, noise_sd=noise_sd(stages["clean"], settings))


def claims(result: xr.Dataset) -> list[Claim]:
    """When each category crosses, which categories differ, and how much takes another way."""
    return _trace_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """Recovery at the last token over depth, all prompts together."""
    return as_curve(result, "overall_recovery").sel(row="last token").drop_vars("row")


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Rows by category, transitions, contrasts, and every prompt's own trace."""
    return _trace_figures.draw(result)
