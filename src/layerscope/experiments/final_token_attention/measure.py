"""Prompts of final_token_attention: the last token's attention to every token, and the crossovers of a saved trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import (
    layer_coordinate,
    named,
    prompt_coordinates,
    prompt_token_coordinates,
    samples,
    text_coordinate,
)
from layerscope.experiments.final_token_attention.items import PromptsItem, TraceItem, read_transitions
from layerscope.experiments.final_token_attention.settings import Settings
from layerscope.results.combine import concatenate
from layerscope.results.escaping import stored
from layerscope.text.constraints import clean_constraint
from layerscope.text.tokenised import TokenisedPrompt

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel

ATTENTION, BY_VALUE = WEIGHTINGS = ("attention", "by value norm")


def saved_crossovers(
    model: LayeredModel, item: TraceItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Crossover depths [prompt] as the trace has them; NaN for prompts that it has not."""
    _, found = read_transitions(Path(item.folder), None)
    depths = [found.get(stored(name), np.nan) for name in item.prompts]
    return samples(
        named(
            depths,
            "transition_layer",
            "crossover depth: where the last token takes over",
            "layer",
            dims=["prompt"],
        ),
        prompt=text_coordinate(item.prompts, "prompt", "prompt"),
    )


def attention_of_last(
    model: LayeredModel, item: PromptsItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Shares of the last token's attention [token weighting layer head], and why a prompt does not count."""
    lengths = runs.ValueLengths(model)
    shares, written, logits = runs.attention_of_last(
        model, [prompt.tokens.ids for prompt in item.prompts], lengths
    )
    parts = [
        _of_prompt(
            prompt,
            np.stack([shares[place], written[place]]),
            item.unfit[place] or _wrong(model, prompt, logits[place], settings),
        )
        for place, prompt in enumerate(item.prompts)
    ]
    sources = sorted({lengths.source(layer) for layer in lengths.layers})
    return concatenate(parts).assign(
        value_source=named(" or ".join(sources), "value_source", "what value norms are norms of").variable
    )


def _of_prompt(prompt: TokenisedPrompt, values: np.ndarray, reason: str) -> xr.Dataset:
    """One prompt's shares [weighting layer head token]."""
    return samples(
        named(
            np.moveaxis(values, -1, 0),
            "attention",
            "attention of the last token",
            dims=("token", "weighting", "layer", "head"),
        ),
        named([stored(reason)], "left_out_because", "why the prompt is left out, or empty", dims=["prompt"]),
        **prompt_coordinates(prompt),
        **prompt_token_coordinates(prompt, range(prompt.n_tokens), prompt.noised),
        weighting=text_coordinate(WEIGHTINGS, "weighting", "what is averaged"),
        layer=layer_coordinate(values.shape[1]),
    )


def _wrong(model: LayeredModel, prompt: TokenisedPrompt, logits: Tensor, settings: Settings) -> str:
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
