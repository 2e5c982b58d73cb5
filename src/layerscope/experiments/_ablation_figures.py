"""What breaks without a layer, in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import text_coordinate
from layerscope.evidence.groups import PASSAGES, TOKEN, groups_named
from layerscope.experiments._ablation_curves import CURVES, EARLIER, LATER, curve
from layerscope.plots import curve_over_depth

_BAND = "Bands are bootstrap intervals over passages."
_LEAST = 1e-5
_DONE = {"skip": "skipped", "repeat": "repeated", "swap": "swapped"}


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures in the order in which a reader wants them; only what was measured."""
    names = [
        str(name)
        for name in result.ablation.values
        if np.isfinite(result.mean_kl.sel(ablation=name).values).any()
    ]
    whole = [name for name in ("skip", "repeat", "swap", "random push") if name in names]
    parts = [name for name in ("mean attention", "mean MLP", "skip") if name in names]
    figures: dict[str, Any] = {}
    if whole:
        figures["what breaks when a block is skipped, repeated or swapped?"] = _of(
            result,
            {name: (name, "kl", PASSAGES) for name in whole},
            "kl",
            f"A random push is as long as the block's own step and turns the state as far. {_BAND}"
            if "random push" in whole
            else _BAND,
        )
        figures["how many first choices stay?"] = _of(
            result, {name: (name, "same_top", PASSAGES) for name in whole}, "same_top", _BAND
        )
        figures["how much does the loss rise?"] = _of(
            result, {name: (name, "loss_increase", PASSAGES) for name in whole}, "loss_increase", _BAND
        )
    if len(parts) > 1:
        figures["attention or MLP: which does a block need?"] = _of(
            result,
            {name: (name, "kl", PASSAGES) for name in parts},
            "kl",
            f"What attention or MLP adds is replaced by its mean over a corpus. {_BAND}",
        )
    earlier = {
        f"{done} for {whose}": (name, "kl", LATER)
        for kind, done in _DONE.items()
        for name, whose in ((f"{kind}{EARLIER}", "earlier tokens only"), (kind, "all tokens"))
        if name in names and f"{kind}{EARLIER}" in names
    }
    if earlier:
        figures["which blocks do later tokens need earlier ones for?"] = _of(
            result, earlier, "kl", f"Read at the later tokens. {_BAND}"
        )
    kinds = groups_named(result, TOKEN)[:6]
    chosen = "skip" if "skip" in names else (names or [""])[0]
    if kinds and chosen:
        for name, title in (("kl", "divergence"), ("loss_increase", "rise of the loss")):
            figures[f"{title} after {chosen}, by category of token"] = _of(
                result, {kind.removeprefix(TOKEN): (chosen, name, kind) for kind in kinds}, name, _BAND
            )
    return figures


def _of(result: xr.Dataset, wanted: Mapping[str, tuple[str, str, str]], name: str, caption: str) -> Any:
    curves = [curve(result, *of) for of in wanted.values()]
    both = xr.concat(curves, dim="row", join="exact", combine_attrs="drop").assign_coords(
        row=text_coordinate(list(wanted), "row", "line")
    )
    if name == "kl":
        if bool((both["value"] < _LEAST).any()):
            caption = f"What is below {_LEAST:g} nat is drawn there. {caption}"
        both = both.assign({part: both[part].clip(min=_LEAST) for part in ("value", "low", "high")})
    if name == "loss_increase":
        both, caption = _without_the_worst(both, caption)
    both["value"].attrs = {"long_name": CURVES[name], "units": "1"}
    return curve_over_depth(both, log=name == "kl", caption=caption)


def _without_the_worst(curves: xr.Dataset, caption: str) -> tuple[xr.Dataset, str]:
    """A block ten times as harmful as any other would hide them all: it is told in words."""
    harm = np.nan_to_num(np.abs(curves["value"].values)).max(axis=curves["value"].dims.index("row"))
    worst = int(harm.argmax())
    if len(harm) < 3 or harm[worst] < 10 * np.delete(harm, worst).max():
        return curves, caption
    told = f"Not drawn: block {worst}, up to {harm[worst]:.2g} nat. {caption}"
    others = curves["layer"] != curves["layer"].values[worst]
    return curves.assign({part: curves[part].where(others) for part in ("value", "low", "high")}), told
