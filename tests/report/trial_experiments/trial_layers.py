"""Which layer of a made-up model does something?

Source: nobody, "Nothing".
"""

from __future__ import annotations

from typing import Any

import xarray as xr
from plotly.graph_objects import Figure

from layerscope.contract import Claim, ExperimentSettings
from layerscope.evidence import measure
from layerscope.plots import curve_over_depth, more
from layerscope.results.escaping import stored
from layerscope.results.pages import Chapter, Excerpt, Page, Piece

TAKES = {"passages"}
STAGES = ()
HEADLINES = ("mean_share",)
PLACE = 1
HOSTILE = "<script>alert(4)</script><b>"


class Settings(ExperimentSettings):
    pass


def conclude(stages: Any, settings: Settings) -> xr.Dataset:
    raise NotImplementedError


def claims(result: xr.Dataset) -> list[Claim]:
    return [
        Claim(text="Layer 3 does what no other does.", value=0.9, select={"variable": "share", "layer": 3}),
        Claim(text="Nothing goes on in layer 2.", value=0.0, significant=False, select={"layer": 2}),
        Claim(
            text=f"All layers do 0.08 on average in the attention sink {HOSTILE}.",
            value=0.08,
            significant=True,
            stated=True,
            select={"variable": "mean_share"},
        ),
    ]


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    labels = {"label": "share done here", "sense": "the layer does much", "questions": "attention"}
    return {"share": measure(result, "share", null=0.0, **labels)}


def draw(result: xr.Dataset) -> dict[str, Figure]:
    curve = over_depth(result)["share"][["value", "low", "high"]]
    return {"Share by layer": curve_over_depth(curve)} | more({"Share again": curve_over_depth(curve)})


def read(result: xr.Dataset) -> dict[str, Page]:
    chapter = Chapter("keys of it", (Excerpt((Piece(stored(HOSTILE)), Piece(" two")), "0.9", "p1"),))
    other = Chapter("keys of another", (Excerpt((Piece("elsewhere"),), "0.1", "p2"),))
    return {"layer 3: examples": Page((chapter,), "How to read.", 3), "layer 5": Page((other,), "", 5)}
