"""When does the answer appear, and when is it settled?

At every depth the state is sent through the model's own final norm and unembedding, with its soft cap
and scale, as if the blocks after it did not exist. Read off: the divergence from the final distribution,
and rank and probability of the answer. For prompts the answer is the one they state, read at the last
token; for passages it is the token that the model itself ends up preferring, read at some positions of
each. The answer first leads at the first depth where it has rank 1, and is settled at the depth from
which it keeps it. A tuned lens, where its folder is given, is read beside: it translates each state by
an affine map that was trained for that depth.

Nulls: the log-probability of another position's answer (for prompts, of another prompt's); and the
divergence from the average of the other positions' final distributions, which is what a lens would
reach that knows nothing of the token. Every token is kept; passages and prompts are independent.

Beware: what a lens cannot read at a depth may be there all the same, in a form that only later blocks
can use; early depths of some families look like noise through the logit lens and not through a tuned
one. The last lens is the model itself, and a run in which it is not is refused.

Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; Belrose et al. 2023, "Eliciting latent
predictions from transformers with the tuned lens".
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field

from layerscope import runs
from layerscope.contract import Claim, Earlier, ExperimentSettings, Inputs, Stage, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.coordinates import (
    depth_coordinate,
    passage_token_coordinates,
    prompts_coordinates,
    text_coordinate,
)
from layerscope.evidence.groups import packed, prompts_by_length, span_name, spread
from layerscope.experiments import _lens_claims, _lens_curves, _lens_figures
from layerscope.experiments._lens_curves import MEASURED
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.results.combine import concatenate
from layerscope.results.schema import quantity
from layerscope.results.words import stored
from layerscope.text.categories import label_tokens
from layerscope.text.tokenised import TokenisedPassage, TokenisedPrompt

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.runs import LensReading

TAKES = {"passages", "prompts"}
NEEDS: set[str] = set()


class Settings(ExperimentSettings):
    """Choices of a lens."""

    tuned: str = Field(
        "",
        description="folder of a tuned lens (config.json and params.pt or params.safetensors); empty for none",
    )
    positions: int = Field(
        32,
        gt=0,
        description="positions of each passage that are read, evenly spread; every depth costs an unembedding",
    )
    first_position: int = Field(
        1, ge=0, description="positions before this one are not read: BOS predicts nothing"
    )
    wrong: bool = Field(False, description="whether prompts count that the model gets wrong")
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(2000, gt=0, description="bootstrap resamples of passages or prompts")


class LensItem(WorkItem):
    """Some passages, or some prompts of equal length."""

    passages: tuple[TokenisedPassage, ...] = ()
    prompts: tuple[TokenisedPrompt, ...] = ()
    others: tuple[int, ...] = Field(
        (), description="another prompt's answer for each prompt; -1 where none is stated"
    )
    tuned: str = Field("", description="sha256 of the tuned lens")


def _digest(settings: Settings) -> str:
    return runs.lens_digest(settings.tuned) if settings.tuned else ""


# -- passages -----------------------------------------------------------------------------------------


def _passage_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[LensItem]:
    _refuse_nothing_left(inputs, settings)
    digest = _digest(settings)
    for some in packed(inputs.passages, inputs.tokens_per_pass):
        size = sum(len(passage.tokens) + settings.positions for passage in some)
        yield LensItem(name=span_name(some), size=size, passages=some, tuned=digest)


def _refuse_nothing_left(inputs: Inputs, settings: Settings) -> None:
    longest = max((len(passage.tokens) for passage in inputs.passages), default=0)
    if not inputs.prompts and longest <= settings.first_position:
        raise LayerscopeError(
            "no token is left to read",
            found=f"the longest passage has {longest} tokens, first_position is {settings.first_position}",
            expected="passages longer than first_position",
            hint="--set first_position=0, or longer passages",
        )


def _passages(model: LayeredModel, item: LensItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    lenses = _lenses(model, item, settings)
    return concatenate([_passage(model, passage, settings, lenses) for passage in item.passages])


def _lenses(model: LayeredModel, item: LensItem, settings: Settings) -> dict[str, Any]:
    if not settings.tuned:
        return {"logit lens": None}
    shape = {"n_layers": model.n_layers, "width": model.facts.width}
    tuned = runs.read_tuned_lens(settings.tuned, **shape, digest=item.tuned)
    return {"logit lens": None, "tuned lens": tuned}


def _passage(
    model: LayeredModel, passage: TokenisedPassage, settings: Settings, lenses: dict[str, Any]
) -> xr.Dataset:
    positions = spread(settings.first_position, len(passage.tokens), settings.positions)
    # A passage that is too short is read all the same, so that it is listed; its one token is not averaged.
    kept = positions or [len(passage.tokens) - 1]
    readings = runs.read_lens(model, [passage.tokens.ids], kept, lenses=list(lenses.values()))
    categories = label_tokens(passage.tokens, passage.passage.text).category
    where = passage_token_coordinates(passage)
    return _dataset(
        model,
        readings,
        lenses,
        "token",
        {name: values[kept] for name, values in where.items()}
        | {
            "token_category": text_coordinate(
                [categories[p] for p in kept], "token", "category of the token"
            ),
            "passage": text_coordinate([passage.name], "passage", "passage"),
        },
    )


# -- prompts ------------------------------------------------------------------------------------------


def _prompt_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[LensItem]:
    others = _answers_of_others(inputs.prompts)
    digest = _digest(settings)
    for some in prompts_by_length(inputs.prompts, inputs.tokens_per_pass, inputs.facts.context):
        yield LensItem(
            name=span_name(some),
            size=sum(prompt.n_tokens for prompt in some),
            prompts=some,
            others=tuple(others[prompt.name] for prompt in some),
            tuned=digest,
        )


def _answers_of_others(prompts: tuple[TokenisedPrompt, ...]) -> dict[str, int]:
    """For each prompt the answer of another of its category, which differs from its own."""
    others: dict[str, int] = {}
    for prompt in prompts:
        mates = [
            mate.answer_ids[0]
            for mate in prompts
            if mate.category == prompt.category
            and not mate.own
            and mate.answer_ids[0] not in prompt.answer_ids[:1]
        ]
        place = len(others) % len(mates) if mates else 0
        others[prompt.name] = mates[place] if mates and not prompt.own else -1
    return others


def _prompts(model: LayeredModel, item: LensItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    lenses = _lenses(model, item, settings)
    readings = runs.read_lens(
        model,
        [prompt.tokens.ids for prompt in item.prompts],
        [item.prompts[0].last],
        answers=[-1 if prompt.own else prompt.answer_ids[0] for prompt in item.prompts],
        others=item.others,
        lenses=list(lenses.values()),
    )
    return _dataset(model, readings, lenses, "prompt", prompts_coordinates(item.prompts))


def _dataset(
    model: LayeredModel,
    readings: list[LensReading],
    lenses: dict[str, Any],
    dimension: str,
    coords: dict[str, xr.Variable],
) -> xr.Dataset:
    prefix = "" if dimension == "token" else "prompt_"
    first = readings[0]
    variables = {
        f"{prefix}{name}": quantity(
            np.stack([getattr(reading, name).cpu().numpy() for reading in readings], axis=1),
            f"{dimension} lens depth",
            long_name,
            units,
        )
        for name, (long_name, units) in MEASURED.items()
    }
    texts = {
        f"{prefix}{name}_text": quantity(
            [_text_of(model.tokenizer, token) for token in getattr(first, name).tolist()],
            dimension,
            what,
        )
        for name, what in (("answer", "the answer's token"), ("top", "the model's most probable token"))
    }
    average = first.kl_to_average.cpu().numpy()
    return xr.Dataset(
        variables
        | texts
        | {
            f"{prefix}kl_to_average": quantity(
                average, dimension, "divergence from the average of the other positions' distributions", "nat"
            )
        },
        coords=coords
        | {
            "depth": depth_coordinate(model.n_layers),
            "lens": text_coordinate(list(lenses), "lens", "how states are read"),
        },
    )


@lru_cache(maxsize=65536)
def _text_of(tokenizer: Any, token: int) -> str:
    """A token's text in its stored form; decoding each anew would take as long as a tenth of the model."""
    return stored(tokenizer.decode([token]))


STAGES = (
    Stage("passages", items=_passage_items, measure=_passages),
    Stage("prompts", items=_prompt_items, measure=_prompts),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Curves with intervals by group, the depths where the answer leads and is settled, and contrasts."""
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)
    return _lens_curves.conclude(stages["passages"], stages["prompts"], settings, mean)


def claims(result: xr.Dataset) -> list[Claim]:
    """When the answer leads and is settled, how near depths are to the end, and whether categories differ."""
    return _lens_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """Divergence from the final distribution; the null knows nothing of the token but what others predict."""
    return _lens_curves.over_depth(result)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Divergence, probability and rank through depth, where answers are settled, categories."""
    return _lens_figures.draw(result)
