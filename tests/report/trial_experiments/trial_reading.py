"""Which words of a made-up text are to be read?

Nothing is measured; pages for reading, and sheets, can be tried with it.

Beware: all of this is invented.

Source: nobody, "Nothing".
"""

from __future__ import annotations

from typing import Any

import xarray as xr
from plotly.graph_objects import Figure

from layerscope.contract import Claim, ExperimentSettings, Judged
from layerscope.plots import curve_over_depth
from layerscope.results.annotation_sheets import Judgements, Sheet
from layerscope.results.escaping import restored, stored
from layerscope.results.pages import Chapter, Excerpt, Page, Piece

TAKES = {"prompts"}
STAGES = ()


class Settings(ExperimentSettings):
    pass


def conclude(stages: Any, settings: Settings) -> xr.Dataset:
    raise NotImplementedError


def claims(result: xr.Dataset) -> list[Claim]:
    return []


def over_depth(result: xr.Dataset) -> xr.Dataset:
    return result[["value", "low", "high", "null"]].sel(row="last token", drop=True)


def draw(result: xr.Dataset) -> dict[str, Figure]:
    return {"the last token's row": curve_over_depth(over_depth(result))}


def read(result: xr.Dataset) -> dict[str, Page]:
    text = restored(str(result.token_text.values[0]))
    hostile = stored(text)
    pieces = (
        Piece(stored("calm")),
        Piece(stored(" text")),
        Piece(stored(" \n"), shade=0.5, marked=True),
        Piece(hostile, shade=-1.0),
        Piece(hostile, shade=float("nan")),
    )
    line = Excerpt(pieces, value=text, source=hostile)
    chapter = Chapter(hostile, (line,), note=text, name="one")
    return {text: Page((chapter,), text)}


def sheet(result: xr.Dataset) -> Sheet:
    return Sheet(("context",), {"r1": ("x",), "r2": ("y",)}, {"kind": ("yes", "no")})


def judged(result: xr.Dataset, judgements: Judgements) -> Judged:
    said = "; ".join(f"{who} said {given['r1']['kind']}" for who, given in judgements.answers.items())
    return Judged(
        claims=[Claim(text=f"claim of annotators: {said}")],
        figures={"figure of annotators": draw(result)["the last token's row"]},
        notes={"one": f"note: {said}"},
    )
