"""Some texts of logit_lens, read at every depth through every lens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import (
    depth_coordinate,
    named,
    passage_token_coordinates,
    prompts_coordinates,
    samples,
    text_coordinate,
)
from layerscope.evidence.groups import spread
from layerscope.experiments.logit_lens.items import LensItem
from layerscope.experiments.logit_lens.measure.token_text import text_of
from layerscope.experiments.logit_lens.settings import Settings
from layerscope.results.combine import concatenate
from layerscope.text.categories import label_tokens
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.runs import LensReading
    from layerscope.runs.tuned_lens import TunedLens

MEASURED = {
    "kl": ("divergence of the lens from the final distribution", "nat"),
    "log_probability": ("log-probability of the answer", "nat"),
    "rank": ("rank of the answer", "1"),
    "other_log_probability": ("log-probability of another position's answer", "nat"),
    "next_log_probability": ("log-probability of the text's own next token", "nat"),
}


def passages(model: LayeredModel, item: LensItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Some positions of some passages: the answer is the token that the model itself ends up preferring."""
    lenses = _lenses(model, item, settings)
    return concatenate([_passage(model, passage, settings, lenses) for passage in item.passages])


def _lenses(model: LayeredModel, item: LensItem, settings: Settings) -> dict[str, TunedLens | None]:
    if not settings.tuned:
        return {"logit lens": None}
    shape = {"n_layers": model.n_layers, "width": model.facts.width}
    tuned = runs.read_tuned_lens(settings.tuned, **shape, digest=item.tuned)
    return {"logit lens": None, "tuned lens": tuned}


def _passage(
    model: LayeredModel,
    passage: TokenisedPassage,
    settings: Settings,
    lenses: Mapping[str, TunedLens | None],
) -> xr.Dataset:
    positions = spread(settings.first_position, len(passage.tokens), settings.positions)
    # A passage that is too short is read all the same, so that it is listed; its one token is not averaged.
    kept = positions or [len(passage.tokens) - 1]
    readings = runs.read_lens(model, [passage.tokens.ids], kept, lenses=list(lenses.values()))
    categories = label_tokens(passage.tokens, passage.passage.text).category
    where = {name: values[kept] for name, values in passage_token_coordinates(passage).items()}
    return _read(
        model,
        readings,
        lenses,
        "token",
        **where,
        token_category=text_coordinate([categories[p] for p in kept], "token", "category of the token"),
        passage=text_coordinate([passage.name], "passage", "passage"),
    )


def prompts(model: LayeredModel, item: LensItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The last token of some prompts of equal length."""
    lenses = _lenses(model, item, settings)
    readings = runs.read_lens(
        model,
        [prompt.tokens.ids for prompt in item.prompts],
        [item.prompts[0].last],
        answers=[-1 if prompt.own else prompt.answer_ids[0] for prompt in item.prompts],
        others=item.others,
        lenses=list(lenses.values()),
    )
    return _read(model, readings, lenses, "prompt", **prompts_coordinates(item.prompts))


def _read(
    model: LayeredModel,
    readings: list[LensReading],
    lenses: Mapping[str, TunedLens | None],
    dimension: str,
    **coordinates: xr.Variable,
) -> xr.Dataset:
    prefix = "" if dimension == "token" else "prompt_"
    first = readings[0]
    read = [
        named(
            np.stack([getattr(reading, name).cpu().numpy() for reading in readings], axis=1),
            f"{prefix}{name}",
            long_name,
            units,
            dims=(dimension, "lens", "depth"),
        )
        for name, (long_name, units) in MEASURED.items()
    ]
    texts = [
        named(
            [text_of(model.tokenizer, token) for token in getattr(first, name).tolist()],
            f"{prefix}{name}_text",
            what,
            dims=(dimension,),
        )
        for name, what in (("answer", "the answer's token"), ("top", "the model's most probable token"))
    ]
    average = named(
        first.kl_to_average,
        f"{prefix}kl_to_average",
        "divergence from the average of the other positions' distributions",
        "nat",
        dims=(dimension,),
    )
    return samples(
        *read,
        *texts,
        average,
        **coordinates,
        depth=depth_coordinate(model.n_layers),
        lens=text_coordinate(list(lenses), "lens", "how states are read"),
    )
