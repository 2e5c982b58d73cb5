"""One work item of hidden_states to samples: sums for the mean state, then the path of every token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import (
    depth_coordinate,
    layer_coordinate,
    named,
    number_coordinate,
    passage_token_coordinates,
    prompts_coordinates,
    samples,
    text_coordinate,
)
from layerscope.evidence.groups import spread
from layerscope.experiments.hidden_states.items import TextsItem
from layerscope.experiments.hidden_states.measure.path import pair_cosines, path
from layerscope.experiments.hidden_states.settings import Settings
from layerscope.maths.alignment import dependence
from layerscope.maths.distributions import rank
from layerscope.results.combine import concatenate
from layerscope.results.schema import GROWS
from layerscope.text.categories import label_tokens
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel


def centre(model: LayeredModel, item: TextsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Sums of a text's states and of their squared entries at each depth, in float64."""
    tokens = item.passages[0].tokens if item.passages else item.prompts[0].tokens
    states = runs.read_states(model, tokens.ids)[:, settings.first_position :].double()
    dims = ("depth", "width")
    return samples(
        named(states.sum(1), "sum", "sum of states", dims=dims),
        named((states * states).sum(1), "squares", "sum of squared entries", dims=dims),
        named(float(states.shape[1]), "count", "tokens summed over"),
        depth=depth_coordinate(model.n_layers),
        width=number_coordinate(range(states.shape[2]), "width", "entry of the residual stream"),
    )


def massive_dimensions(centre: xr.Dataset, count: int) -> np.ndarray:
    """The dimensions with the largest share of the squared norm, averaged over depths, largest first."""
    shares = centre.squares.values / centre.squares.values.sum(axis=1, keepdims=True)
    return np.argsort(-shares.mean(axis=0), kind="stable")[:count]


def _centre_and_massive(
    model: LayeredModel, settings: Settings, earlier: Earlier
) -> tuple[Tensor, list[int]]:
    import torch

    found = earlier["centre"]
    mean = torch.as_tensor(found["sum"].values / float(found["count"]), dtype=torch.float32)
    return mean.to(model.device), massive_dimensions(found, settings.massive).tolist()


def passages(model: LayeredModel, item: TextsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The path of every token of some passages, and of some tokens how alike their depths are."""
    mean, massive = _centre_and_massive(model, settings, earlier)
    parts = [_passage(model, passage, settings, mean, massive) for passage in item.passages]
    return concatenate(parts, along=(*GROWS, "sampled"))


def _passage(
    model: LayeredModel, passage: TokenisedPassage, settings: Settings, mean: Tensor, massive: list[int]
) -> xr.Dataset:
    found = runs.read_contributions(model, passage.tokens.ids)
    n = len(passage.tokens)
    sampled = spread(settings.first_position, n, settings.sampled_tokens)
    aligned = spread(settings.first_position, n, settings.aligned_tokens)
    together = dependence(found.states[:, aligned].cpu().numpy())[None]
    categories = label_tokens(passage.tokens, passage.passage.text).category
    return samples(
        *path(found, centre=mean, massive=massive, dimension="token"),
        *pair_cosines(found.states[:, sampled], mean, "sampled"),
        named(
            together,
            "dependence",
            "unbiased HSIC between two depths",
            dims=("passage", "depth", "other_depth"),
        ),
        named([len(aligned)], "aligned", "tokens of the passage that it rests on", dims=("passage",)),
        **passage_token_coordinates(passage),
        token_category=text_coordinate(categories, "token", "category of the token"),
        passage=text_coordinate([passage.name], "passage", "passage"),
        sampled_passage=text_coordinate([passage.name] * len(sampled), "sampled", "passage of the token"),
        sampled=number_coordinate(
            sampled, "sampled", "position of a token whose depths are compared in pairs"
        ),
        **_axes(model),
    )


def prompts(model: LayeredModel, item: TextsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The path of the last token of some prompts, and the rank of their answers."""
    mean, massive = _centre_and_massive(model, settings, earlier)
    found = runs.read_last_tokens(model, [prompt.tokens.ids for prompt in item.prompts])
    tops = found.logits.argmax(-1).tolist()
    answers = [
        top if prompt.own else prompt.answer_ids[0] for prompt, top in zip(item.prompts, tops, strict=True)
    ]
    ranks = rank(found.logits, found.logits.new_tensor(answers).long())
    return samples(
        *path(found, centre=mean, massive=massive, dimension="prompt", prefix="prompt_"),
        *pair_cosines(found.states, mean, "prompt", "prompt_"),
        named(ranks, "answer_rank", "rank of the answer", dims=("prompt",)),
        **prompts_coordinates(item.prompts),
        **_axes(model),
    )


def _axes(model: LayeredModel) -> dict[str, xr.Variable]:
    depths = depth_coordinate(model.n_layers)
    return {
        "depth": depths,
        "other_depth": number_coordinate(depths.values, "other_depth", "depth [layers applied]"),
        "layer": layer_coordinate(model.n_layers),
    }
