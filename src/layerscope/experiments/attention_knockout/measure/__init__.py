"""What attention_knockout keeps: effects of every cut, at every target, draw and way of placing removed attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope.contract import Earlier, TokenisedPrompt
from layerscope.evidence import (
    layer_coordinate,
    named,
    number_coordinate,
    prompts_coordinates,
    samples,
    text_coordinate,
)
from layerscope.evidence.distances import names_of_ranges, unread
from layerscope.experiments.attention_knockout.items import (
    PROMPT_SETS,
    PassageItem,
    PromptsItem,
    in_layers,
    names_of_sets,
    passage_sets,
    prompt_sets,
)
from layerscope.experiments.attention_knockout.measure.cutting import knocked_out
from layerscope.experiments.attention_knockout.measure.effects import Effects, Target
from layerscope.experiments.attention_knockout.measure.values import mean_values
from layerscope.experiments.attention_knockout.settings import Settings
from layerscope.text.constraints import clean_constraint

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel

_BY_FATE, _BY_DRAW = ("fate", "window", "layer"), ("window", "sample", "layer")
_KEPT = {
    "divergence": (_BY_FATE, "divergence of the next-token distribution from the model's own", "nat"),
    "loss": (_BY_FATE, "log-probability that is lost", "nat"),
    "mass": (("window", "layer"), "attention that was cut, mean over heads", "1"),
    "control_divergence": (_BY_DRAW, "divergence with random keys cut", "nat"),
    "control_loss": (_BY_DRAW, "log-probability that is lost with random keys cut", "nat"),
    "control_mass": (_BY_DRAW, "attention that was cut at random, mean over heads", "1"),
}


def cut_passage(model: LayeredModel, item: PassageItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Some targets of one passage, each cut from every range of distance at every layer."""
    tokens, n, listed = item.passage.tokens, len(item.targets), int(item.listed)
    sets = names_of_sets(item.ends, names_of_ranges(item.ends))
    if n:
        effects = knocked_out(
            model,
            [tokens.ids],
            [Target(0, t, passage_sets(t, item.ends), tokens.ids[t + 1]) for t in item.targets],
            settings,
            mean_values=mean_values(model, earlier),
            names=[item.passage.passage.text],
            tokens_per_pass=item.tokens_per_pass,
        )
    else:
        effects = _nothing(model, settings, 0, len(sets))
    left_out = text_coordinate([item.left_out] * listed, "passage", "why the passage is left out, or empty")
    coordinates = {
        "passage": text_coordinate([item.passage.name] * listed, "passage", "passage"),
        "token_passage": text_coordinate([item.passage.name] * n, "token", "passage of the token"),
        "position": number_coordinate(item.targets, "token", "position in the passage"),
        "token_unread": unread(item.passage, n),
        "token_text": text_coordinate(
            [tokens.texts[t] for t in item.targets], "token", "token, as JSON text"
        ),
        "edges": text_coordinate(sets, "edges", "keys that are cut off"),
    }
    return samples(
        named(xr.DataArray(left_out), "left_out_because"),
        *_arrays(effects, "token", "edges"),
        **coordinates,
        **_coordinates(model, settings),
    ).assign_attrs(bos=int(tokens.bos))


def cut_prompts(model: LayeredModel, item: PromptsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The last token of prompts of one length, cut from the subject and from the other tokens at every layer."""
    means = mean_values(model, earlier)
    fit = [place for place, unfit in enumerate(item.unfit) if not unfit]
    # Unfit prompts keep their place, without a number.
    effects = _nothing(model, settings, len(item.prompts), len(PROMPT_SETS))
    if fit:
        some = [item.prompts[place] for place in fit]
        effects.put(fit, _cut_prompts(model, some, item, settings, means))
    reasons = [
        unfit or _wrong(model, prompt, effects, place, settings)
        for place, (prompt, unfit) in enumerate(zip(item.prompts, item.unfit, strict=True))
    ]
    left_out = text_coordinate(reasons, "prompt", "why the prompt is left out, or empty")
    return samples(
        *_arrays(effects, "prompt", "prompt_edges", "prompt_"),
        named(xr.DataArray(left_out), "prompt_left_out_because"),
        named(np.int64(item.of), "prompts_given", "prompts that were given"),
        named(
            effects.log_probability,
            "prompt_log_probability",
            "log-probability of the answer, nothing cut",
            "nat",
            dims=("prompt",),
        ),
        **prompts_coordinates(item.prompts),
        prompt_edges=text_coordinate(PROMPT_SETS, "prompt_edges", "keys that are cut off"),
        **_coordinates(model, settings),
    )


def _nothing(model: LayeredModel, settings: Settings, targets: int, sets: int) -> Effects:
    return Effects.unknown(
        targets, sets, in_layers(settings.windows, model.n_layers), model.n_layers, settings
    )


def _arrays(effects: Effects, unit: str, sets: str, prefix: str = "") -> list[xr.DataArray]:
    values = (
        effects.divergence,
        effects.loss,
        effects.mass,
        effects.control,
        effects.control_loss,
        effects.control_mass,
    )
    return [
        named(array, prefix + name, long_name, units, dims=(unit, sets, *dims))
        for array, (name, (dims, long_name, units)) in zip(values, _KEPT.items(), strict=True)
    ]


def _coordinates(model: LayeredModel, settings: Settings) -> dict[str, xr.Variable]:
    widths = in_layers(settings.windows, model.n_layers)
    return {
        "fate": text_coordinate(settings.fates, "fate", "where the removed attention goes"),
        "window": number_coordinate(widths, "window", "layers that are cut together"),
        "layer": layer_coordinate(model.n_layers),
    }


def _cut_prompts(
    model: LayeredModel,
    prompts: Sequence[TokenisedPrompt],
    item: PromptsItem,
    settings: Settings,
    means: list[Tensor] | None,
) -> Effects:
    return knocked_out(
        model,
        [prompt.tokens.ids for prompt in prompts],
        [
            Target(row, prompt.last, prompt_sets(prompt), None if prompt.own else prompt.answer_ids[0])
            for row, prompt in enumerate(prompts)
        ],
        settings,
        mean_values=means,
        names=[prompt.text for prompt in prompts],
        tokens_per_pass=item.tokens_per_pass,
    )


def _wrong(
    model: LayeredModel, prompt: TokenisedPrompt, found: Effects, place: int, settings: Settings
) -> str:
    """Why a prompt is left out although it is fit: the model does not give its answer."""
    if prompt.own or settings.wrong:
        return ""
    right = clean_constraint(
        prompt,
        top1_id=int(found.top[place]),
        top1_text=model.tokenizer.decode([int(found.top[place])]),
        rank=int(found.rank[place]),
        probability=float(np.exp(found.log_probability[place])),
    )
    return "" if right.holds else right.detail
