"""The state's path in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import text_coordinate
from layerscope.evidence.curves import as_curve
from layerscope.evidence.groups import ALL_PROMPTS, FIRST, PASSAGES, PROMPT, TOKEN, groups_named
from layerscope.experiments._geometry import long_name
from layerscope.experiments._state_curves import LAYER_NAMES, curve
from layerscope.plots import curve_over_depth, curves_with_phases, depth_pairs

_BAND = "Bands are bootstrap intervals over passages."
_PROMPT_BAND = "Last token of each prompt; bands are bootstrap intervals over prompts."


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures of passages, then of prompts; each title says what is shown."""
    figures: dict[str, Any] = {}
    if PASSAGES in result.group.values:
        figures |= _of_passages(result)
    if ALL_PROMPTS in result.group.values:
        figures |= _of_prompts(result)
    return figures


def _lines(result: xr.Dataset, wanted: Mapping[str, tuple[str, str]], long_name: str) -> xr.Dataset:
    """Quantities as lines of one figure: labels to group and quantity."""
    curves = [curve(result, group, name) for group, name in wanted.values()]
    both = xr.concat(curves, dim="row", join="exact", combine_attrs="drop").assign_coords(
        row=text_coordinate(list(wanted), "row", "line")
    )
    both["value"].attrs = {"long_name": long_name, "units": "1"}
    return both


def _of_passages(result: xr.Dataset) -> dict[str, Any]:
    def apart(name: str) -> dict[str, tuple[str, str]]:
        return {"tokens after the first": (PASSAGES, name), "first token": (FIRST, name)}

    figures = {
        "norm over depth": curve_over_depth(
            _lines(result, apart("norm"), "norm of the residual stream (geometric mean)"),
            log=True,
            caption=_BAND,
        ),
        "growth of the norm at each block": _growth(result),
        "length of each block's step": curve_over_depth(
            _lines(
                result,
                {
                    "all dimensions": (PASSAGES, "relative_step"),
                    "without the massive dimensions": (PASSAGES, "relative_step_without"),
                    "first token": (FIRST, "relative_step"),
                },
                "length of a block's step over that of the state",
            ),
            log=True,
            caption=_BAND,
        ),
        "does a block go on where the last one went?": curve_over_depth(
            _lines(result, apart("turn"), "cosine between a block's step and the one before it"),
            caption=_BAND,
        ),
        "cosine between neighbouring depths": curve_over_depth(
            _lines(
                result,
                {
                    "as it is": (PASSAGES, "successive_cosine"),
                    "mean state taken away": (PASSAGES, "centred_cosine"),
                    "without the massive dimensions": (PASSAGES, "cosine_without"),
                },
                "cosine between the states before and after a block",
            ),
            caption=_BAND,
        ),
    }
    return figures | _of_parts(result) | _of_similarity(result) | _of_kinds(result) | _of_phases(result)


def _growth(result: xr.Dataset) -> Any:
    """Only the blocks inside the rate's range: the first block multiplies the norm, which would hide the rest."""
    first, last = int(result.attrs["growth_first"]), int(result.attrs["growth_last"])
    whole = curve(result, PASSAGES, "growth")
    drawn = (whole.layer >= first) & (whole.layer < last)
    inside = whole.assign({part: whole[part].where(drawn) for part in ("value", "low", "high")})
    rate, n_layers = float(result.growth_rate), result.sizes["layer"]
    outside = ", ".join(
        f"block {layer} {float(whole.value[layer]):+.0%}".replace("-", "−")
        for layer in range(n_layers)
        if not first <= layer < last
    )
    caption = f"Dashed: the rate over all of these blocks. Not drawn: {outside or 'nothing'}. {_BAND}"
    return curve_over_depth(
        inside.assign(null=xr.full_like(whole.value, rate).assign_attrs(name="over all of them")),
        caption=caption,
    )


def _of_parts(result: xr.Dataset) -> dict[str, Any]:
    parts = {"attention": "attention", "MLP": "mlp"}
    share = _lines(
        result, {text: (PASSAGES, f"{part}_share") for text, part in parts.items()}, "share of a block's step"
    )
    known = bool(np.isfinite(share.value).any())
    directions = {"whole step": (PASSAGES, "step_direction")}
    if known:
        directions |= {text: (PASSAGES, f"{part}_direction") for text, part in parts.items()}
    massive = {"tokens after the first": (PASSAGES, "massive_share"), "first token": (FIRST, "massive_share")}
    largest = _lines(result, massive, f"share of the state's {result.sizes['rank']} largest entries")
    chance = xr.full_like(largest.value.isel(row=0, drop=True), float(result.massive_share_expected))
    figures = {
        "do blocks write along the state or against it?": curve_over_depth(
            _lines(result, directions, "cosine with the state before the block"),
            caption=f"Above 0 a block strengthens what is there, below it takes some away. {_BAND}",
        ),
        "how much of the squared norm lies in few entries?": curve_over_depth(
            largest.assign(null=chance.assign_attrs(name="normal entries")),
            caption=f"The dashed line is a state with normal entries. {_BAND}",
        ),
    }
    if known:
        figures["what attention and MLP make of each step"] = curve_over_depth(share, caption=_BAND)
    return figures


def _of_similarity(result: xr.Dataset) -> dict[str, Any]:
    kinds = {
        "cosine": "mean_pair_cosine",
        "cosine, centred": "mean_pair_cosine_centred",
        "kernel alignment": "alignment",
    }
    there = {text: result[name].reset_coords(drop=True) for text, name in kinds.items() if name in result}
    if not there:
        return {}
    squares = xr.concat(list(there.values()), dim="row", join="exact", combine_attrs="drop").assign_coords(
        row=text_coordinate(list(there), "row", "similarity")
    )
    squares.attrs = {"long_name": "similarity of two depths", "units": "1"}
    return {"how alike are every two depths?": depth_pairs(squares, caption="First positions left out.")}


def _of_kinds(result: xr.Dataset) -> dict[str, Any]:
    caption = f"Categories of tokens after the first positions. {_BAND}"
    kinds = groups_named(result, TOKEN)[:6]
    titles = {
        "norm": "norm by category of token",
        "relative_step": "length of each block's step by category of token",
    }
    return {
        title: curve_over_depth(_of_groups(result, kinds, TOKEN, name), log=True, caption=caption)
        for name, title in titles.items()
        if kinds
    }


def _of_groups(result: xr.Dataset, groups: list[str], kind: str, name: str) -> xr.Dataset:
    wanted = {group.removeprefix(kind): (group, name) for group in groups}
    return _lines(result, wanted, LAYER_NAMES.get(name) or long_name(name))


def _of_phases(result: xr.Dataset) -> dict[str, Any]:
    if "phase_signal" not in result:
        return {}
    signal = result.phase_signal.reset_coords(drop=True)
    signal.attrs = {"long_name": "standardised over layers", "units": "SD"}
    better, n = float(result.phase_better), result.sizes["change"]
    verdict = (
        f"Phases beat a smooth drift in {better:.0%} of resamples."
        if n and better >= 0.95
        else "Not distinguishable from a smooth drift; the lines are the best cut all the same."
    )
    begins = as_curve(result, "phase_begins")
    caption = (
        f"Dotted: a phase begins. {verdict}" if n else "No cut into phases is worth its price: none is drawn."
    )
    return {
        "where do the layers change together?": curves_with_phases(
            xr.Dataset({"value": signal}), begins, caption=caption
        )
    }


def _of_prompts(result: xr.Dataset) -> dict[str, Any]:
    groups = [
        group for group in groups_named(result, PROMPT) if int(curve(result, group, "norm").n.max()) > 0
    ][:6]
    titles = {
        "norm": "norm of the last token's state, by category of prompt",
        "relative_step": "length of each block's step at the last token, by category of prompt",
        "turn": "does the last token's path turn, by category of prompt?",
        "centred_cosine": "centred cosine between neighbouring depths, by category of prompt",
    }
    return {
        title: curve_over_depth(
            _of_groups(result, groups, PROMPT, name),
            log=name in ("norm", "relative_step"),
            caption=_PROMPT_BAND,
        )
        for name, title in titles.items()
        if groups
    }
