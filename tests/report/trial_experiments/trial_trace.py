"""Which states of a made-up model carry the answer?

Each state is made up from a logistic curve, so that `report` can be tried without a model; the
numbers of `recovery` mean nothing.

- first made up,
- then drawn.

Beware: all of this is invented.

Source: nobody, "Nothing".
"""

from __future__ import annotations

from typing import Any

import xarray as xr
from plotly.graph_objects import Figure
from pydantic import Field

from layerscope.contract import Claim, ExperimentSettings
from layerscope.plots import (
    NamedHeatmap,
    curve_over_depth,
    differences,
    distribution,
    heatmap_gallery,
    rows_by_category,
)

TAKES = {"prompts"}
STAGES = ()


class Settings(ExperimentSettings):
    noise: float | str = Field(0.5, description='SD of the noise, absolute, or "3sd"')
    samples: int = Field(10, ge=1, description="noise draws per prompt")
    window: tuple[int, ...] = Field((1,), description="layers restored together")


def conclude(stages: Any, settings: Settings) -> xr.Dataset:
    raise NotImplementedError


def claims(result: xr.Dataset) -> list[Claim]:
    facts, phrases = (result.mean_transition.sel(category=name) for name in ("facts", "phrases"))
    return [
        Claim(
            text="the subject of facts reaches the last token at depth 7.8",
            value=float(facts), low=float(facts) - 0.8, high=float(facts) + 0.9,
            caveat="depth counts blocks already applied",
            select={"variable": "mean_transition", "category": "facts"},
        ),
        Claim(
            text="facts cross 2.6 blocks later than phrases",
            value=float(facts - phrases), low=1.9, high=3.2, p_adjusted=0.0004, significant=True,
            select={"variable": "difference", "contrast": "facts − phrases"},
        ),
        Claim(
            text=str(result.attrs["hostile"]),
            value=0.3, low=-0.4, high=1.0, p_adjusted=0.41, significant=False,
            caveat=str(result.attrs["hostile"]),
        ),
    ]  # fmt: skip


def over_depth(result: xr.Dataset) -> xr.Dataset:
    return result[["value", "low", "high", "null"]].sel(row="last token", drop=True)


def draw(result: xr.Dataset) -> dict[str, Figure]:
    values = result[["value", "low", "high"]]
    means = xr.Dataset({name: result[f"mean_transition{end}"] for name, end in _ENDS.items()})
    categories = [str(name) for name in result.prompt_category.values]
    return {
        "where the answer's information is": rows_by_category(values, means),
        "the last token's row": curve_over_depth(over_depth(result), caption="Bands are 95 % intervals."),
        "one prompt at a time": heatmap_gallery(_heatmaps(result)),
        "where each prompt crosses": distribution(result.transition_layer, categories, means),
        "categories compared": differences(
            result[["difference", "difference_low", "difference_high", "p_adjusted"]].rename(
                difference_low="low", difference_high="high"
            )
        ),
        str(result.attrs["hostile"]): curve_over_depth(over_depth(result), title="of its own"),
    }


_ENDS = {"value": "", "low": "_low", "high": "_high"}


def _heatmaps(result: xr.Dataset) -> list[NamedHeatmap]:
    recovery = result.recovery
    return [
        NamedHeatmap(
            str(name),
            one := recovery.isel(token=recovery.prompt_of_token.values == name),
            [str(token) for token in one.token_text.values],
            [place for place, noised in enumerate(one.noised.values) if noised],
            str(category),
        )
        for name, category in zip(result.prompt.values, result.prompt_category.values, strict=True)
    ]
