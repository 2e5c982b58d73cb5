"""How does the state move through depth: how long is it, how far does each block move it, and does it turn?

For every token of every passage: the norm of the residual stream at each depth, the length of each
block's step beside the state it starts from, the cosine between one step and the next, and the cosine
between the states before and after each block; what attention and MLP make of each step, and whether
they write along the state or against it. For some tokens the cosine between the states at every two
depths, and over them centred kernel alignment. The growth rate is the slope of log norm over depth,
without its first and last step. With prompts, the same of the last token, by category.

Cosines are given as they are, with the mean state taken away, and without the massive dimensions: the
few entries that hold most of the squared norm. Every token is kept; averages leave out the first
positions, which are shown apart (the first token can be twenty times longer than any other), and treat
passages and prompts, not tokens, as independent. Lengths and their ratios are averaged as logarithms.
Phases are stretches of layers that behave alike, found by change-point detection on all curves
together; they are claimed only where they describe the curves better than a smooth drift.

Beware: the state grows while steps keep their length, so the cosine between neighbouring depths rises
for that reason alone; read it beside the relative step. In a block whose MLP reads after its attention,
both are compared with the state before the block.

Source: Kinniment 2022, "Recall and Regurgitation in GPT2", hidden states; Heimersheim & Turner 2023,
"Residual stream norms grow exponentially over the forward pass"; Csordás et al. 2025, "Do language
models use their depth efficiently?"; Kornblith et al. 2019 (CKA); Sun et al. 2024, "Massive activations
in large language models".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field

from layerscope import runs
from layerscope.contract import Claim, Earlier, ExperimentSettings, Inputs, Stage, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.coordinates import (
    depth_coordinate,
    layer_coordinate,
    number_coordinate,
    passage_token_coordinates,
    prompts_coordinates,
    text_coordinate,
)
from layerscope.evidence.groups import main_group, packed, prompts_by_length, span_name, spread
from layerscope.experiments import _state_claims, _state_curves, _state_figures
from layerscope.experiments._geometry import pair_cosines, path_variables
from layerscope.maths.alignment import FEWEST, dependence
from layerscope.maths.distributions import rank
from layerscope.results.combine import concatenate
from layerscope.results.schema import GROWS, quantity
from layerscope.text.categories import label_tokens
from layerscope.text.tokenised import TokenisedPassage, TokenisedPrompt

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel

TAKES = {"passages", "prompts"}
NEEDS: set[str] = set()

_ALONG = (*GROWS, "sampled")


class Settings(ExperimentSettings):
    """Choices about averages, and about what is measured on some tokens only."""

    first_position: int = Field(1, ge=0, description="positions before this one are left out of averages")
    leave_out_ends: int = Field(
        1,
        ge=0,
        description="depths left out at each end of the growth rate: the first block does something else",
    )
    massive: int = Field(
        3, ge=1, description="dimensions with the largest share of the squared norm, which are left out once"
    )
    sampled_tokens: int = Field(
        16, ge=0, description="tokens of each passage, evenly spread, whose depths are compared in pairs"
    )
    aligned_tokens: int = Field(
        64, ge=FEWEST, description="tokens of each passage, evenly spread, for centred kernel alignment"
    )
    centre_texts: int = Field(
        8, gt=0, description="passages (or prompts, without passages) that give the mean state"
    )
    wrong: bool = Field(False, description="whether prompts count that the model gets wrong")
    most_changes: int = Field(
        3,
        ge=1,
        description="changes of phase to consider; at most as many as leave two layers to a phase on average",
    )
    phase_resamples: int = Field(
        200, gt=0, description="bootstrap resamples for phases, each of which is cut anew"
    )
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(2000, gt=0, description="bootstrap resamples of passages or prompts")


class TextsItem(WorkItem):
    """Some passages, or some prompts."""

    passages: tuple[TokenisedPassage, ...] = ()
    prompts: tuple[TokenisedPrompt, ...] = ()


# -- the mean state, and which dimensions are massive ------------------------------------------------


def _centre_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TextsItem]:
    _refuse_nothing_left(inputs, settings)
    passages = [passage for passage in inputs.passages if len(passage.tokens) > settings.first_position]
    prompts = [prompt for prompt in _readable(inputs) if prompt.n_tokens > settings.first_position]
    for place in _places(len(passages or prompts), settings.centre_texts):
        if passages:
            text = passages[place]
            yield TextsItem(name=text.name, size=len(text.tokens), passages=(text,))
        else:
            prompt = prompts[place]
            yield TextsItem(name=prompt.name, size=prompt.n_tokens, prompts=(prompt,))


def _places(n: int, count: int) -> list[int]:
    """At most `count` of n places, spread over all of them: the first few may be of one kind."""
    return [int(place) for place in np.unique(np.linspace(0, n - 1, min(count, n)).round())]


def _refuse_nothing_left(inputs: Inputs, settings: Settings) -> None:
    lengths = [len(passage.tokens) for passage in inputs.passages]
    lengths += [prompt.n_tokens for prompt in _readable(inputs)]
    longest = max(lengths, default=0)
    if longest <= settings.first_position:
        raise LayerscopeError(
            "no token is left to average over",
            found=f"the longest text has {longest} tokens, first_position is {settings.first_position}",
            expected="texts longer than first_position",
            hint="--set first_position=1, or longer passages",
        )


def _readable(inputs: Inputs) -> list[TokenisedPrompt]:
    context = inputs.facts.context
    return [prompt for prompt in inputs.prompts if context is None or prompt.n_tokens <= context]


def _centre(model: LayeredModel, item: TextsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    tokens = item.passages[0].tokens if item.passages else item.prompts[0].tokens
    states = runs.read_states(model, tokens.ids)[:, settings.first_position :].double()
    sums, squares = states.sum(1).cpu().numpy(), (states * states).sum(1).cpu().numpy()
    return xr.Dataset(
        {
            "sum": quantity(sums, "depth width", "sum of states"),
            "squares": quantity(squares, "depth width", "sum of squared entries"),
            "count": quantity(float(states.shape[1]), "", "tokens summed over"),
        },
        coords={
            "depth": depth_coordinate(model.n_layers),
            "width": number_coordinate(range(states.shape[2]), "width", "entry of the residual stream"),
        },
    )


def _add(so_far: xr.Dataset, more: xr.Dataset) -> xr.Dataset:
    return xr.Dataset(
        {
            name: quantity(
                so_far[name].values + more[name].values, map(str, so_far[name].dims), **_named(so_far[name])
            )
            for name in so_far.data_vars
        },
        coords=so_far.coords,
    )


def _named(values: xr.DataArray) -> dict[str, str]:
    return {"long_name": values.attrs["long_name"], "units": values.attrs["units"]}


def massive_dimensions(centre: xr.Dataset, count: int) -> np.ndarray:
    """The dimensions with the largest share of the squared norm, averaged over depths, largest first."""
    shares = centre.squares.values / centre.squares.values.sum(axis=1, keepdims=True)
    return np.argsort(-shares.mean(axis=0), kind="stable")[:count]


def _centre_and_massive(
    model: LayeredModel, settings: Settings, earlier: Earlier
) -> tuple[Tensor, list[int]]:
    import torch

    centre = earlier["centre"]
    mean = torch.as_tensor(centre["sum"].values / float(centre["count"]), dtype=torch.float32)
    return mean.to(model.device), massive_dimensions(centre, settings.massive).tolist()


# -- passages: every token ----------------------------------------------------------------------------


def _passage_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TextsItem]:
    for some in packed(inputs.passages, inputs.tokens_per_pass):
        yield TextsItem(
            name=span_name(some), size=sum(len(passage.tokens) for passage in some), passages=some
        )


def _passages(model: LayeredModel, item: TextsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    centre, massive = _centre_and_massive(model, settings, earlier)
    parts = [_passage(model, passage, settings, centre, massive) for passage in item.passages]
    return concatenate(parts, along=_ALONG)


def _passage(
    model: LayeredModel, passage: TokenisedPassage, settings: Settings, centre: Tensor, massive: list[int]
) -> xr.Dataset:
    found = runs.read_contributions(model, passage.tokens.ids)
    n = len(passage.tokens)
    sampled = spread(settings.first_position, n, settings.sampled_tokens)
    aligned = spread(settings.first_position, n, settings.aligned_tokens)
    together = dependence(found.states[:, aligned].cpu().numpy())
    categories = label_tokens(passage.tokens, passage.passage.text).category
    depths = depth_coordinate(model.n_layers)
    return xr.Dataset(
        path_variables(found, slice(None), centre=centre, massive=massive, dimension="token")
        | pair_cosines(found.states[:, sampled], centre, "sampled")
        | {
            "dependence": quantity(
                together[None], "passage depth other_depth", "unbiased HSIC between two depths"
            ),
            "aligned": quantity([len(aligned)], "passage", "tokens of the passage that it rests on"),
        },
        coords=passage_token_coordinates(passage)
        | {
            "token_category": text_coordinate(categories, "token", "category of the token"),
            "passage": text_coordinate([passage.name], "passage", "passage"),
            "sampled_passage": text_coordinate(
                [passage.name] * len(sampled), "sampled", "passage of the token"
            ),
            "sampled": number_coordinate(
                sampled, "sampled", "position of a token whose depths are compared in pairs"
            ),
            "depth": depths,
            "other_depth": number_coordinate(depths.values, "other_depth", "depth [blocks applied]"),
            "layer": layer_coordinate(model.n_layers),
        },
    )


# -- prompts: the last token --------------------------------------------------------------------------


def _prompt_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TextsItem]:
    for some in prompts_by_length(inputs.prompts, inputs.tokens_per_pass, inputs.facts.context):
        yield TextsItem(name=span_name(some), size=sum(prompt.n_tokens for prompt in some), prompts=some)


def _prompts(model: LayeredModel, item: TextsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    centre, massive = _centre_and_massive(model, settings, earlier)
    found = runs.read_last_tokens(model, [prompt.tokens.ids for prompt in item.prompts])
    tops = found.logits.argmax(-1).tolist()
    answers = [
        top if prompt.own else prompt.answer_ids[0] for prompt, top in zip(item.prompts, tops, strict=True)
    ]
    ranks = rank(found.logits, found.logits.new_tensor(answers).long())
    depths = depth_coordinate(model.n_layers)
    return xr.Dataset(
        path_variables(
            found, slice(None), centre=centre, massive=massive, dimension="prompt", prefix="prompt_"
        )
        | pair_cosines(found.states, centre, "prompt", "prompt_")
        | {"answer_rank": quantity(ranks.cpu().numpy(), "prompt", "rank of the answer")},
        coords=prompts_coordinates(item.prompts)
        | {
            "depth": depths,
            "other_depth": number_coordinate(depths.values, "other_depth", "depth [blocks applied]"),
            "layer": layer_coordinate(model.n_layers),
        },
    )


STAGES = (
    Stage("centre", items=_centre_items, measure=_centre, combine=_add),
    Stage("passages", items=_passage_items, measure=_passages, along=_ALONG),
    Stage("prompts", items=_prompt_items, measure=_prompts, along=_ALONG),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Curves with intervals over passages and over prompts, categories, growth, similarity, phases."""
    massive = massive_dimensions(stages["centre"], settings.massive)
    return _state_curves.conclude(stages["passages"], stages["prompts"], massive, stages["centre"], settings)


def claims(result: xr.Dataset) -> list[Claim]:
    """How fast the state grows, what the first token, massive dimensions and categories do, and phases."""
    return _state_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """How far each block moves the state beside its length, as a power of ten: the first block moves it most."""
    found = _state_curves.curve(result, main_group(result), "relative_step")
    curve = found[["value", "low", "high"]].map(np.log10)
    curve["value"].attrs = {"long_name": "log10 of a block's step over the length of the state", "units": "1"}
    return curve


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Norm, steps, directions, cosines, similarity of depths, categories and phases."""
    return _state_figures.draw(result)
