"""What attention_knockout keeps: effects of every cut, at every target, sample and fate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence.coordinates import (
    layer_coordinate,
    number_coordinate,
    prompts_coordinates,
    text_coordinate,
)
from layerscope.evidence.distances import names_of_ranges, unread
from layerscope.experiments._knockout_items import (
    PROMPT_SETS,
    PassageItem,
    PromptsItem,
    ValuesItem,
    in_blocks,
    names_of_sets,
    passage_sets,
    prompt_sets,
)
from layerscope.experiments._knockout_runs import Effects, Target, knocked_out, no_effects
from layerscope.results.escaping import stored
from layerscope.results.schema import quantity
from layerscope.text.constraints import clean_constraint

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.experiments.attention_knockout import Settings
    from layerscope.models.layered import LayeredModel
    from layerscope.text.tokenised import TokenisedPrompt

_KEPT = {
    "divergence": (
        "fate window layer",
        "divergence of the next-token distribution from the model's own",
        "nat",
    ),
    "loss": ("fate window layer", "log-probability that is lost", "nat"),
    "mass": ("window layer", "attention that was cut, mean over heads", "1"),
    "control_divergence": ("window sample layer", "divergence with keys cut at random", "nat"),
    "control_loss": ("window sample layer", "log-probability that is lost with keys cut at random", "nat"),
    "control_mass": ("window sample layer", "attention that was cut at random, mean over heads", "1"),
}


# -- mean values --------------------------------------------------------------------------------------


def sums_of_values(model: LayeredModel, item: ValuesItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Sums of the values of some texts as each query head reads them, the first token's left out."""
    model.need("pattern")
    sums: dict[int, np.ndarray] = {}
    for batch in _of_one_length(item.texts):
        recording = runs.record(model, runs.BaseRun(batch), keep=("q", "v"))
        for layer, values in recording.inside["v"].items():
            heads = recording.inside["q"][layer].shape[1]
            summed = values[:, :, 1:].double().sum(dim=(0, 2)).cpu().numpy()
            sums[layer] = sums.get(layer, 0.0) + summed.repeat(heads // len(summed), axis=0)
    shape = np.max([value.shape for value in sums.values()], axis=0)
    whole = np.full((model.n_layers, *shape), np.nan)
    for layer, value in sums.items():
        whole[layer, : value.shape[0], : value.shape[1]] = value
    return xr.Dataset(
        {
            "sum": quantity(whole, "layer head entry", "sum of values, the first token's left out"),
            "count": quantity(np.int64(sum(len(ids) - 1 for ids in item.texts)), "", "number of values"),
        },
        coords={
            "layer": layer_coordinate(model.n_layers),
            "entry": number_coordinate(range(whole.shape[-1]), "entry", "entry of a value"),
        },
    )


def _of_one_length(texts: Sequence[tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    """All texts together where they are equally long, else one by one."""
    return (
        [tuple(texts)]
        if len({len(ids) for ids in texts}) == 1 and len(texts[0]) < 64
        else [(t,) for t in texts]
    )


def added(folded: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    """The sums of two sets of texts."""
    return folded.assign(
        {name: folded[name].copy(data=folded[name].values + part[name].values) for name in ("sum", "count")}
    )


def _mean_values(model: LayeredModel, earlier: Earlier) -> list[Tensor] | None:
    import torch

    if "sum" not in earlier["values"]:
        return None
    found = []
    for layer in (earlier["values"]["sum"] / earlier["values"]["count"]).values:
        known = ~np.isnan(layer)
        rows, entries = known.any(axis=1), known.any(axis=0)
        found.append(torch.from_numpy(layer[rows][:, entries]).float().to(model.device))
    return found


# -- passages -----------------------------------------------------------------------------------------


def cut_passage(model: LayeredModel, item: PassageItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Some targets of one passage, each cut from every range of distance at every layer."""
    ids, texts = item.passage.tokens.ids, item.passage.tokens.texts
    names = names_of_sets(item.ends, names_of_ranges(item.ends))
    n, listed = len(item.targets), int(item.listed)
    variables = {
        "left_out_because": quantity(
            np.array([stored(item.left_out)] * listed, dtype=str),
            "passage",
            "why the passage is left out, or empty",
        )
    }
    if n:
        effects = knocked_out(
            model,
            [ids],
            [Target(0, t, passage_sets(t, item.ends), ids[t + 1]) for t in item.targets],
            settings,
            windows=in_blocks(settings.windows, model.n_layers),
            mean_values=_mean_values(model, earlier),
            names=[item.passage.passage.text],
            tokens_per_pass=item.tokens_per_pass,
        )
    else:
        effects = _nothing(model, settings, 0, len(names))
    return xr.Dataset(
        variables | _variables(effects, "token", "edges", ""),
        coords={
            "passage": text_coordinate([item.passage.name] * listed, "passage", "passage"),
            "token_passage": text_coordinate([item.passage.name] * n, "token", "passage of the token"),
            "position": number_coordinate(item.targets, "token", "position in the passage"),
            "token_unread": unread(item.passage, n),
            "token_text": text_coordinate([texts[t] for t in item.targets], "token", "token, as JSON text"),
            "edges": text_coordinate(names, "edges", "keys that are cut off"),
        }
        | _coordinates(model, settings),
    ).assign_attrs(bos=int(item.passage.tokens.bos))


def _nothing(model: LayeredModel, settings: Settings, targets: int, sets: int) -> Effects:
    return no_effects(
        targets, sets, len(in_blocks(settings.windows, model.n_layers)), model.n_layers, settings
    )


def _variables(effects: Effects, unit: str, edges: str, prefix: str) -> dict[str, xr.Variable]:
    arrays = {
        "divergence": effects.divergence,
        "loss": effects.loss,
        "mass": effects.mass,
        "control_divergence": effects.control,
        "control_loss": effects.control_loss,
        "control_mass": effects.control_mass,
    }
    found = {}
    for name, values in arrays.items():
        dims, long_name, units = _KEPT[name]
        found[prefix + name] = quantity(values, f"{unit} {edges} {dims}", long_name, units)
    return found


def _coordinates(model: LayeredModel, settings: Settings) -> dict[str, xr.Variable]:
    return {
        "fate": text_coordinate(settings.fates, "fate", "where the attention goes that is cut off"),
        "window": number_coordinate(
            in_blocks(settings.windows, model.n_layers), "window", "layers that are cut together"
        ),
        "layer": layer_coordinate(model.n_layers),
    }


# -- prompts ------------------------------------------------------------------------------------------


def cut_prompts(model: LayeredModel, item: PromptsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The last token of prompts of one length, cut from the subject and from the other tokens at every layer."""
    means = _mean_values(model, earlier)
    fit = [place for place, unfit in enumerate(item.unfit) if not unfit]
    # Unfit prompts keep their place, without a number.
    effects = _nothing(model, settings, len(item.prompts), len(PROMPT_SETS))
    if fit:
        some = [item.prompts[place] for place in fit]
        effects.put(fit, _cut_prompts(model, some, item, settings, means))
    reasons = [
        stored(unfit or _wrong(model, prompt, effects, place, settings))
        for place, (prompt, unfit) in enumerate(zip(item.prompts, item.unfit, strict=True))
    ]
    return xr.Dataset(
        _variables(effects, "prompt", "prompt_edges", "prompt_")
        | {
            "prompt_left_out_because": quantity(
                np.array(reasons, dtype=str), "prompt", "why the prompt is left out, or empty"
            ),
            "prompts_given": quantity(np.int64(item.of), "", "prompts that were given"),
            "prompt_log_probability": quantity(
                effects.log_probability,
                "prompt",
                "log-probability of the answer, nothing cut",
                "nat",
            ),
        },
        coords=prompts_coordinates(item.prompts)
        | {"prompt_edges": text_coordinate(PROMPT_SETS, "prompt_edges", "keys that are cut off")}
        | _coordinates(model, settings),
    )


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
        windows=in_blocks(settings.windows, model.n_layers),
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
