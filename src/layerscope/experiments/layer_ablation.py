"""What breaks when a layer is skipped, repeated or swapped, or when its attention or MLP adds only its mean?

Each passage is run as it is; then, for every block, again without it, with it twice, with it and the next
one in reverse order, with what its attention (or its MLP) adds replaced by the mean of that over a corpus;
and with the block skipped for the earlier tokens only, read at the later ones: what of the block's work do
later tokens use? (On request it is repeated or swapped for the earlier ones only as well.) Read off at every
token: the divergence of the ablated distribution from the model's own, whether the most probable token stays,
and how much the loss on the text's own next token rises.

The null is a push of the same length: the block's step is kept, and a vector as long as that step is added,
which takes as much of the state's own direction away as skipping does and else points anywhere: the state is
left as long and as far turned. A skipped block that does more harm than that has written something in
particular. Every token is kept; averages are over passages, by category of token; blocks are compared with the
null by a permutation test that is corrected for all blocks.

Beware: skipping takes the model off the states that it was trained on, and later blocks may repair the
damage; a block that can be skipped may have a twin. Steps of neighbouring tokens go together and random pushes
do not, so fresh weights are told from the null as well: its size decides, beside the untrained twin's. A mean
over a corpus still holds what is common to all texts. Blocks keep their own positions and windows when they
are swapped.

Source: Lad et al. 2024, "The remarkable robustness of LLMs: stages of inference?"; Csordás et al. 2025, "Do
language models use their depth efficiently?", skipping a layer for earlier tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from layerscope import runs
from layerscope.contract import Claim, Earlier, ExperimentSettings, Inputs, Stage, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.coordinates import (
    layer_coordinate,
    number_coordinate,
    passage_token_coordinates,
    text_coordinate,
)
from layerscope.experiments import _ablation_claims, _ablation_curves, _ablation_figures
from layerscope.experiments._ablation_runs import Effects, ablated
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.results.schema import quantity
from layerscope.text.categories import label_tokens
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

TAKES = {"passages"}

Ablation = Literal[
    "skip", "skip earlier", "repeat", "repeat earlier", "swap", "swap earlier", "mean attention", "mean MLP",
    "random push",
]  # fmt: skip
EVERYTHING: tuple[Ablation, ...] = (
    "skip", "skip earlier", "repeat", "swap", "mean attention", "mean MLP", "random push",
)  # fmt: skip


class Settings(ExperimentSettings):
    """Choices of an ablation."""

    ablations: tuple[Ablation, ...] = Field(
        EVERYTHING,
        min_length=1,
        description="what is done to each block; also 'repeat earlier' and 'swap earlier', for the earlier tokens only",
    )
    ablated_passages: int = Field(
        8, gt=0, description="passages that are ablated, spread over all that are given"
    )
    tokens: int = Field(64, gt=1, description="tokens of each passage that are run, from its beginning")
    mean_passages: int = Field(
        8, gt=0, description="passages that give the mean of what attention and MLP add"
    )
    first_position: int = Field(1, ge=0, description="positions before this one are read, but left out of averages and "
                                "never given a mean: the first token's vectors are unlike any other's")  # fmt: skip
    earlier: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of the tokens that count as earlier where a block is changed for those only",
    )
    negligible: float = Field(
        0.001, gt=0, description="divergence in nats, up to which a block is said to make no difference"
    )
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(2000, gt=0, description="bootstrap resamples of passages")


class PassageItem(WorkItem):
    """One passage."""

    passage: TokenisedPassage


class AblatedItem(PassageItem):
    """One passage whose blocks are ablated."""

    tokens_per_pass: int


def _spread_over(passages: tuple[TokenisedPassage, ...], count: int) -> list[TokenisedPassage]:
    places = np.unique(np.linspace(0, len(passages) - 1, min(count, len(passages))).round().astype(int))
    return [passages[place] for place in places]


# -- what attention and MLP add on average ------------------------------------------------------------


def _mean_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PassageItem]:
    long_enough = tuple(p for p in inputs.passages if len(p.tokens) > max(1, settings.first_position))
    if not long_enough:
        longest = max(len(passage.tokens) for passage in inputs.passages)
        raise LayerscopeError(
            "no token is left to average over",
            found=f"the longest passage has {longest} tokens, first_position is {settings.first_position}",
            expected="passages longer than first_position, and of two tokens or more",
            hint="--set first_position=1, or longer passages",
        )
    for passage in _spread_over(long_enough, settings.mean_passages):
        yield PassageItem(name=passage.name, size=len(passage.tokens), passage=passage)


def _mean(model: LayeredModel, item: PassageItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    found = runs.read_contributions(model, item.passage.tokens.ids)
    sums = {
        part: getattr(found, part)[:, settings.first_position :].double().sum(1).cpu().numpy()
        for part in ("attention", "mlp")
    }
    return xr.Dataset(
        {
            part: quantity(values, "layer width", f"sum of what the {part} adds")
            for part, values in sums.items()
        }
        | {
            "count": quantity(
                float(len(item.passage.tokens) - settings.first_position), "", "tokens summed over"
            )
        },
        coords={
            "layer": layer_coordinate(model.n_layers),
            "width": number_coordinate(range(model.facts.width), "width", "entry of the residual stream"),
        },
    )


def _add(so_far: xr.Dataset, more: xr.Dataset) -> xr.Dataset:
    return xr.Dataset(
        {
            name: quantity(
                values.values + more[name].values, map(str, values.dims), values.attrs["long_name"]
            )
            for name, values in so_far.items()
        },
        coords=so_far.coords,
    )


# -- the ablations ------------------------------------------------------------------------------------


def _items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PassageItem]:
    long_enough = tuple(p for p in inputs.passages if len(p.tokens) > max(1, settings.first_position))
    for passage in _spread_over(long_enough, settings.ablated_passages):
        size = min(len(passage.tokens), settings.tokens) * inputs.facts.n_layers * len(settings.ablations)
        yield AblatedItem(
            name=passage.name, size=size, passage=passage, tokens_per_pass=inputs.tokens_per_pass
        )


def _measure(model: LayeredModel, item: AblatedItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    ids = item.passage.tokens.ids
    n = min(len(ids), settings.tokens)
    cut = max(1, int(n * settings.earlier))
    found = ablated(
        model,
        ids[:n],
        ids[n] if n < len(ids) else None,
        text=item.passage.passage.text,
        cut=cut,
        settings=settings,
        earlier=earlier,
        tokens_per_pass=item.tokens_per_pass,
    )
    return _dataset(model, item.passage, n, cut, settings, found)


def _dataset(
    model: LayeredModel,
    passage: TokenisedPassage,
    n: int,
    cut: int,
    settings: Settings,
    found: Effects,
) -> xr.Dataset:
    dims = "token ablation layer"
    categories = label_tokens(passage.tokens, passage.passage.text).category[:n]
    where = {name: values[:n] for name, values in passage_token_coordinates(passage).items()}
    return xr.Dataset(
        {
            "kl": quantity(
                found.kl, dims, "divergence of the ablated from the model's own distribution", "nat"
            ),
            "same_top": quantity(found.same, dims, "whether the most probable token stays"),
            "loss_increase": quantity(found.loss, dims, "rise of the loss on the text's next token", "nat"),
            "loss": quantity(
                found.clean_loss, "token", "loss on the text's next token, nothing ablated", "nat"
            ),
            "later": quantity(
                np.arange(n) >= cut, "token", "whether ablations of the earlier tokens are read here"
            ),
        },
        coords=where
        | {
            "token_category": text_coordinate(categories, "token", "category of the token"),
            "passage": text_coordinate([passage.name], "passage", "passage"),
            "ablation": text_coordinate(settings.ablations, "ablation", "what is done to a block"),
            "layer": layer_coordinate(model.n_layers),
        },
    )


STAGES = (
    Stage("mean", items=_mean_items, measure=_mean, combine=_add),
    Stage("ablations", items=_items, measure=_measure),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Means by block with intervals, against the null, and by category of token."""
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)
    return _ablation_curves.conclude(stages["ablations"], settings, mean)


def claims(result: xr.Dataset) -> list[Claim]:
    """What breaks most and least, what exceeds the null, and what later tokens use."""
    return _ablation_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """Harm of skipping each block as a power of ten of the divergence; the null is an equally long push."""
    return _ablation_curves.over_depth(result)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Divergence, agreement and loss by block, parts of a block, later tokens, categories."""
    return _ablation_figures.draw(result)
