"""How does attention to the first token fall along a long text, and does it need that token to be BOS?

The longest passages are read three times: with BOS in front, with nothing in front, and with another token
in BOS's place, drawn from the passages. For every layer, head and position, the share of attention that
falls on the first token is kept. Averaged over heads and passages it is drawn against position, beside the
share of attention that falls on all tokens alike, 1 / (position + 1). Over the second half of the text it
is a number for each layer and head, and each way of reading is compared with the first one passage by
passage: a share that stays when BOS goes belongs to the position, one that goes with it to the token.

Beware: without BOS the first token is an ordinary word, and a model that always met BOS has never read a text
without it; the texts grow with position, so a share that falls like 1 / position is what no preference
looks like; and beyond the lengths that a model was trained on, anything may happen.

Source: Kinniment 2022, "Recall and Regurgitation in GPT2", attention along 800 tokens of novels; Xiao et al.
2023, "Efficient streaming language models with attention sinks".
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
from layerscope.evidence.coordinates import layer_coordinate, number_coordinate, text_coordinate
from layerscope.evidence.curves import as_curve
from layerscope.experiments import _first_token_figures, _first_token_summary
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

TAKES = {"passages"}

READINGS = ("BOS first", "nothing added", "another token first")


class Settings(ExperimentSettings):
    """Choices about texts; give --longest 800 and books as passages for what the post did."""

    texts: int = Field(
        12, ge=1, description="the longest passages, so many, are read (the post: 40 samples of each book)"
    )
    late_share: float = Field(
        0.5, gt=0, lt=1, description="share of the longest text's positions, from its end, that count as late"
    )
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(1000, gt=0, description="bootstrap resamples of passages")

    @property
    def needs_first(self) -> bool:
        """It is one of the readings that are compared."""
        return True


class TextItem(WorkItem):
    """One passage without BOS, and what may stand in front of it."""

    passage: str
    first: int | None = Field(description="the token that stands first in this model's texts")
    body: tuple[int, ...]
    other: int = Field(description="the token that is put first in place of BOS")
    positions: int = Field(description="positions of the longest text, for all items alike")


def _items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[TextItem]:
    bodies = {p.name: p.tokens.ids[p.tokens.bos :] for p in inputs.passages}
    longest = sorted(bodies, key=lambda name: -len(bodies[name]))[: settings.texts]
    chosen = {name: bodies[name] for name in bodies if name in set(longest)}
    room = (inputs.facts.context or 10**9) - 1
    positions = min(max(len(body) for body in chosen.values()), room) + 1
    if positions < 8:
        raise LayerscopeError(
            "no passage is long enough to follow attention along it",
            found=f"the longest has {positions - 1} tokens",
            expected="at least seven tokens, and better hundreds",
            hint="--longest 800 with long passages",
        )
    first = next((p.tokens.ids[0] for p in inputs.passages if p.tokens.bos), None)
    pool = sorted({token for body in bodies.values() for token in body})
    for number, (name, body) in enumerate(chosen.items()):
        chance = np.random.default_rng([settings.seed, number])
        yield TextItem(
            name=name,
            size=len(body),
            passage=name,
            first=first,
            body=body[:room],
            other=int(chance.choice(pool)),
            positions=positions,
        )


def _measure(model: LayeredModel, item: TextItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    bos = item.first
    fronts = {READINGS[0]: () if bos is None else (bos,), READINGS[1]: (), READINGS[2]: (item.other,)}
    heads = model.facts.n_heads or 1
    shares: np.ndarray | None = None
    for place, (reading, front) in enumerate(fronts.items()):
        if reading == READINGS[0] and bos is None:
            continue
        found = runs.attention_to_first(model, (*front, *item.body))
        if shares is None:
            heads = found.shape[1]
            shares = np.full((len(READINGS), model.n_layers, heads, item.positions), np.nan, dtype=np.float32)
        shares[place, ..., : found.shape[-1]] = found
    assert shares is not None
    return xr.Dataset(
        {
            "attention_to_first": quantity(
                shares[None], "passage reading layer head position", "share of attention on the first token"
            ),
            "first_token": quantity(
                [[-1 if bos is None else bos, item.body[0], item.other]],
                "passage reading",
                "id of the first token",
            ),
        },
        coords={
            "passage": text_coordinate([item.passage], "passage", "passage"),
            "reading": text_coordinate(READINGS, "reading", "what stands first"),
            "layer": layer_coordinate(model.n_layers),
            "position": number_coordinate(range(item.positions), "position", "position of the query"),
        },
    )


STAGES = (Stage("attention", items=_items, measure=_measure),)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Shares along the text and late in it, their excess over uniform attention, and what BOS has to do with it."""
    return _first_token_summary.conclude(stages["attention"], settings)


def claims(result: xr.Dataset) -> list[Claim]:
    """How large the share is late in the text, where it falls, and whether it needs BOS."""
    return _first_token_summary.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """The first token's share of attention late in the text."""
    here = result.sel(reading=result.attrs["main_reading"], drop=True)
    null = here.uniform_late_share.expand_dims(layer=result.layer.values).reset_coords(drop=True)
    return as_curve(here, "late_share").assign(null=null)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Along the text, by layer, by head, and by what stands first."""
    return _first_token_figures.draw(result)
