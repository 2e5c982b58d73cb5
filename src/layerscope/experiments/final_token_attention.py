"""What does the last token attend to, by prompt category: the first token, the subject, or itself?

Every prompt is read once, undisturbed. In each layer and head, the attention of the last token is kept for
every token; its share on the first token, on the tokens that a causal trace would noise, on itself and on
the rest is averaged over prompts of a category. The same is done for shares times the length of what the
head writes if it takes that key alone. Categories are compared head by head on the logarithm of the share,
as it is and over what uniform attention gives these tokens, labels dealt anew for whole prompts; a head counts
only if in both it exceeds the largest difference that any head, layer and row shows under chance, times the
number of pairs of categories. The spike is the layer in which
heads on average give the noised tokens most. Where the folder of a causal trace of the same prompts is
given, it stands beside the depth at which the answer crosses to the last token.

Prompts that the model gets wrong, or whose subject is the first or last token, are left out and listed.

Beware: categories may differ in length and in the distance from subject to end, and attention falls with
distance; attention is not influence; and a spike is no proof that the answer is read there, which is why
the trace stands beside it.

Source: Kinniment 2022, "Recall and Regurgitation in GPT2", final token attention; Westfall & Young 1993 for
the correction.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field, field_validator

from layerscope import runs
from layerscope.contract import Claim, Earlier, ExperimentSettings, Inputs, Stage, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.coordinates import (
    layer_coordinate,
    prompt_coordinates,
    prompt_token_coordinates,
    text_coordinate,
)
from layerscope.evidence.curves import as_curve
from layerscope.experiments import _final_token_figures, _final_token_summary
from layerscope.experiments._attention_items import in_batches
from layerscope.experiments._saved_trace import read_transitions
from layerscope.results.schema import quantity
from layerscope.results.words import stored
from layerscope.text.constraints import broken_constraints, clean_constraint
from layerscope.text.tokenised import TokenisedPrompt

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

TAKES = {"prompts"}

WEIGHTINGS = ("attention", "by value norm")


class Settings(ExperimentSettings):
    """Choices about which prompts count, and what they are compared with."""

    trace: str = Field(
        "",
        description="folder of a causal_trace run on the same prompts and model, to compare layers with; or empty",
    )
    wrong: bool = Field(
        False, description="whether prompts count that the model gets wrong (the post left them out)"
    )
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(1000, gt=0, description="bootstrap resamples of prompts")
    permutations: int = Field(
        999, gt=0, description="deals of prompts into categories, for the comparison of heads"
    )

    @field_validator("trace")
    @classmethod
    def _from_any_folder(cls, trace: str) -> str:
        return str(Path(trace).expanduser().resolve()) if trace else ""


class TraceItem(WorkItem):
    """A saved causal trace, and the prompts that are looked up in it."""

    folder: str
    result: str
    prompts: tuple[str, ...]


class PromptsItem(WorkItem):
    """Some prompts of one length, and why some of them are unfit."""

    prompts: tuple[TokenisedPrompt, ...]
    unfit: tuple[str, ...]


def _trace_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TraceItem]:
    if settings.trace:
        result, _ = read_transitions(Path(settings.trace), inputs)
        names = tuple(prompt.name for prompt in inputs.prompts)
        yield TraceItem(name="saved trace", size=1, folder=settings.trace, result=result, prompts=names)


def _trace(model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    _, transitions = read_transitions(Path(item.folder), None)
    values = [transitions.get(stored(name), np.nan) for name in item.prompts]
    return xr.Dataset(
        {
            "transition_layer": quantity(
                values, "prompt", "depth at which the answer crosses to the last token", "block"
            )
        },
        coords={"prompt": text_coordinate(item.prompts, "prompt", "prompt")},
    )


def _items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PromptsItem]:
    context = inputs.facts.context
    readable = [prompt for prompt in inputs.prompts if context is None or prompt.n_tokens <= context]
    if not readable:
        raise LayerscopeError(
            "no prompt fits the model",
            found=f"{len(inputs.prompts)} prompts, the shortest of {min(p.n_tokens for p in inputs.prompts)} tokens",
            expected=f"at most {context} tokens",
            hint="shorter prompts",
        )
    for batch in in_batches(readable, inputs.tokens_per_pass, length=lambda prompt: prompt.n_tokens):
        reasons = [
            "; ".join(
                f"{broken.name}: {broken.detail}" for broken in broken_constraints(prompt, context=context)
            )
            for prompt in batch
        ]
        yield PromptsItem(
            name=f"{len(batch)} prompts of {batch[0].n_tokens} tokens",
            size=len(batch) * batch[0].n_tokens,
            prompts=tuple(batch),
            unfit=tuple(reasons),
        )


def _measure(model: LayeredModel, item: PromptsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    lengths = runs.ValueLengths(model)
    shares, written, logits = runs.attention_of_last(
        model, [prompt.tokens.ids for prompt in item.prompts], lengths
    )
    parts = []
    for place, prompt in enumerate(item.prompts):
        reason = item.unfit[place] or _wrong(model, prompt, logits[place], settings)
        values = np.stack([shares[place], written[place]])  # weighting layer head token
        parts.append(
            xr.Dataset(
                {
                    "attention": quantity(
                        np.moveaxis(values, -1, 0),
                        "token weighting layer head",
                        "attention of the last token",
                    ),
                    "left_out_because": quantity(
                        [stored(reason)], "prompt", "why the prompt is left out, or empty"
                    ),
                },
                coords=prompt_coordinates(prompt)
                | prompt_token_coordinates(prompt, range(prompt.n_tokens), prompt.noised)
                | {
                    "weighting": text_coordinate(WEIGHTINGS, "weighting", "what is averaged"),
                    "layer": layer_coordinate(model.n_layers),
                },
            )
        )
    sources = {lengths.source(layer) for layer in lengths.layers}
    from layerscope.results.combine import concatenate

    return concatenate(parts).assign(
        value_source=quantity(" or ".join(sorted(sources)), "", "what value norms are norms of")
    )


def _wrong(model: LayeredModel, prompt: TokenisedPrompt, logits: Any, settings: Settings) -> str:
    """Why a prompt is left out although it is fit: the model does not give its answer."""
    if prompt.own or settings.wrong:
        return ""
    log_probabilities = logits.float().log_softmax(-1)
    answer, top = prompt.answer_ids[0], int(log_probabilities.argmax())
    right = clean_constraint(
        prompt,
        top1_id=top,
        top1_text=model.tokenizer.decode([top]),
        rank=1 + int((log_probabilities > log_probabilities[answer]).sum()),
        probability=float(log_probabilities[answer].exp()),
    )
    return "" if right.holds else right.detail


STAGES = (
    Stage("trace", items=_trace_items, measure=_trace),
    Stage("attention", items=_items, measure=_measure),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Shares by row and category, the heads that tell categories apart, and the spike."""
    return _final_token_summary.conclude(stages, settings)


def claims(result: xr.Dataset) -> list[Claim]:
    """Where the last token looks, which heads tell categories apart, and where the spike stands."""
    return _final_token_summary.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """The last token's attention to the noised tokens, all prompts together."""
    chosen = {"weighting": "attention", "row": "noised tokens"}
    null = result.uniform_overall.sel(row="noised tokens", drop=True)
    curve = as_curve(result.sel(chosen, drop=True), "overall_attention")
    return curve.assign(null=null.expand_dims(layer=result.layer.values).reset_coords(drop=True))


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Rows by category, heads that differ, the spike, and every prompt."""
    return _final_token_figures.draw(result)
