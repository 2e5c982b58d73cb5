"""What breaks without a layer, in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_rows, level_of
from layerscope.evidence.groups import PASSAGES, TOKEN, groups_named
from layerscope.experiments.layer_ablation.conclude import CURVES, LATER, curve
from layerscope.experiments.layer_ablation.settings import EARLIER
from layerscope.plots import curve_over_depth, leading

_CHANGED, _PARTS, _LATER = (
    "What breaks when a layer is changed?",
    "Attention or MLP: which does a layer need?",
    "Is early work used by later tokens?",
)
_TITLES = {
    "kl": _CHANGED,
    "same_top": "How many first choices stay?",
    "loss_increase": "How much does the loss rise?",
}
_MOST_GROUPS = 6


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures in the order in which a reader wants them; only what was measured."""
    names = [
        str(name)
        for name in result.ablation.values
        if np.isfinite(result.mean_kl.sel(ablation=name).values).any()
    ]
    whole = _of_whole_layers(result, names)
    rest = _of_parts(result, names) | _for_later_tokens(result, names) | _by_category(result, names)
    return leading(whole | rest, (_CHANGED, _PARTS, _LATER))


def _of_whole_layers(result: xr.Dataset, names: list[str]) -> dict[str, Any]:
    whole = [name for name in ("skip", "repeat", "swap", "random push") if name in names]
    push = "A random push is as long as the layer's own step and turns the state as far."
    return {
        title: _rows(
            result,
            {name: (name, quantity, PASSAGES) for name in whole},
            quantity,
            push if quantity == "kl" and "random push" in whole else "",
        )
        for quantity, title in _TITLES.items()
        if whole
    }


def _of_parts(result: xr.Dataset, names: list[str]) -> dict[str, Any]:
    parts = [name for name in ("mean attention", "mean MLP", "skip") if name in names]
    if len(parts) < 2:
        return {}
    drawn: dict[str, tuple[str, str, str]] = {name: (name, "kl", PASSAGES) for name in parts}
    caption = "What attention or MLP adds is replaced by its mean over a corpus."
    return {_PARTS: _rows(result, drawn, "kl", caption)}


def _for_later_tokens(result: xr.Dataset, names: list[str]) -> dict[str, Any]:
    drawn = {
        f"{kind}, {whose}": (name, "kl", LATER)
        for kind in ("skip", "repeat", "swap")
        for name, whose in ((f"{kind}{EARLIER}", "earlier tokens only"), (kind, "all tokens"))
        if name in names and f"{kind}{EARLIER}" in names
    }
    if not drawn:
        return {}
    caption = (
        "Read at the later tokens. Where the line for earlier tokens is at the bottom, a layer serves its own token "
        "alone."
    )
    return {_LATER: _rows(result, drawn, "kl", caption)}


def _by_category(result: xr.Dataset, names: list[str]) -> dict[str, Any]:
    kinds, chosen = (
        groups_named(result, TOKEN)[:_MOST_GROUPS],
        "skip" if "skip" in names else (names or [""])[0],
    )
    titles = {"kl": f"Divergence after {chosen}, by category of token",
              "loss_increase": f"Rise of the loss after {chosen}, by category"}  # fmt: skip
    return {
        title: _rows(result, {kind.removeprefix(TOKEN): (chosen, name, kind) for kind in kinds}, name)
        for name, title in titles.items()
        if kinds and chosen
    }


def _rows(
    result: xr.Dataset, wanted: Mapping[str, tuple[str, str, str]], name: str, caption: str = ""
) -> Any:
    rows = as_rows({label: curve(result, *of) for label, of in wanted.items()}, *CURVES[name])
    n = int(curve(result, *next(iter(wanted.values()))).n.max())
    said = [caption, f"Mean over {n} passages, {level_of(result):.0%} bootstrap bands."]
    if name == "kl":
        least = float(result.attrs["negligible"]) / 10
        if bool((rows["value"] < least).any()):
            said.append(f"Drawn at {least:g} where below.")
        rows = rows.assign({part: rows[part].clip(min=least) for part in ("value", "low", "high")})
    long_name, units = CURVES[name]
    rows["value"].attrs = {"long_name": long_name, "units": units}
    return curve_over_depth(
        rows, log=name == "kl", clip=name == "loss_increase", caption=" ".join(filter(None, said))
    )
