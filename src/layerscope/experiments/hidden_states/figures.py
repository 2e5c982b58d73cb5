"""The state's path in pictures: of passages, then of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence import as_curve, as_rows, level_of, text_coordinate
from layerscope.evidence.groups import ALL_PROMPTS, FIRST, PASSAGES, PROMPT, TOKEN, groups_named
from layerscope.experiments.hidden_states.conclude.curves import LAYER_NAMES, curve
from layerscope.experiments.hidden_states.conclude.phases import drift_beaten
from layerscope.experiments.hidden_states.measure.path import long_name
from layerscope.plots import curve_over_depth, curves_with_phases, depth_pairs, leading

_MOST_GROUPS = 6

_LEAD = (
    "How long is the state at each depth?",
    "How far does each layer move the state?",
    "Does a layer continue the last one's step?",
)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures of passages, then of prompts; each title says what is shown."""
    figures: dict[str, Any] = {}
    if PASSAGES in result.group.values:
        figures |= _of_passages(result)
    if ALL_PROMPTS in result.group.values:
        figures |= _of_prompts(result)
    return leading(figures, _LEAD)


def _band(result: xr.Dataset, group: str = PASSAGES, mean: str = "mean") -> str:
    n = int(curve(result, group, "norm").n.max())
    return f"{mean.capitalize()} over {n} {group}, {level_of(result):.0%} bootstrap bands."


def _lines(result: xr.Dataset, wanted: Mapping[str, tuple[str, str]], long_name: str) -> xr.Dataset:
    """Quantities as lines of one figure: labels to group and quantity."""
    return as_rows({label: curve(result, *of) for label, of in wanted.items()}, long_name)


def _apart(name: str) -> dict[str, tuple[str, str]]:
    return {"tokens after the first": (PASSAGES, name), "first token": (FIRST, name)}


def _of_passages(result: xr.Dataset) -> dict[str, Any]:
    return {
        "How long is the state at each depth?": curve_over_depth(
            _lines(result, _apart("norm"), "norm of the residual stream"),
            log=True,
            caption=_band(result, mean="geometric mean"),
        ),
        "Growth of the norm in each layer": _growth(result),
        "How far does each layer move the state?": curve_over_depth(
            _lines(
                result,
                {
                    "all dimensions": (PASSAGES, "relative_step"),
                    "without the massive dimensions": (PASSAGES, "relative_step_without"),
                    "first token": (FIRST, "relative_step"),
                },
                "length of a layer's step over that of the state",
            ),
            log=True,
            caption=_band(result, mean="geometric mean"),
        ),
        "Does a layer continue the last one's step?": curve_over_depth(
            _lines(result, _apart("turn"), "cosine between a layer's step and the one before it"),
            caption=f"Above 0 a layer goes on, below 0 it turns back. {_band(result)}",
        ),
        "How alike are neighbouring depths?": curve_over_depth(
            _lines(
                result,
                {
                    "as it is": (PASSAGES, "successive_cosine"),
                    "mean state taken away": (PASSAGES, "centred_cosine"),
                    "without the massive dimensions": (PASSAGES, "cosine_without"),
                },
                "cosine between the states before and after a layer",
            ),
            caption=f"A growing norm alone makes the cosine rise. {_band(result)}",
        ),
        **_of_parts(result),
        **_of_similarity(result),
        **_of_kinds(result),
        **_of_phases(result),
    }


def _growth(result: xr.Dataset) -> Any:
    """Only the layers inside the rate's range: the first layer multiplies the norm, which would hide the rest."""
    first, last = int(result.attrs["growth_first"]), int(result.attrs["growth_last"])
    whole = curve(result, PASSAGES, "growth")
    drawn = (whole.layer >= first) & (whole.layer < last)
    inside = whole.assign({part: whole[part].where(drawn) for part in ("value", "low", "high")})
    rate, n_layers = float(result.growth_rate), result.sizes["layer"]
    outside = ", ".join(
        f"layer {layer} {float(whole.value[layer]):+.0%}".replace("-", "−")
        for layer in range(n_layers)
        if not first <= layer < last
    )
    return curve_over_depth(
        inside.assign(null=xr.full_like(whole.value, rate).assign_attrs(name="over all of them")),
        caption=f"Dashed: the rate over all of these layers. Not drawn: {outside or 'nothing'}. {_band(result)}",
    )


def _of_parts(result: xr.Dataset) -> dict[str, Any]:
    parts = {"attention": "attention", "MLP": "mlp"}
    share = _lines(
        result, {text: (PASSAGES, f"{part}_share") for text, part in parts.items()}, "share of a layer's step"
    )
    known = bool(np.isfinite(share.value).any())
    directions = {"whole step": (PASSAGES, "step_direction")}
    if known:
        directions |= {text: (PASSAGES, f"{part}_direction") for text, part in parts.items()}
    figures = {
        "Do layers strengthen or erase the state?": curve_over_depth(
            _lines(result, directions, "cosine with the state before the layer"),
            caption=f"Above 0 a layer strengthens what is there, below 0 it takes some away. {_band(result)}",
        ),
        "Squared norm in a state's largest entries": _largest(result),
    }
    if known:
        figures["Attention's and the MLP's share of each step"] = curve_over_depth(
            share, caption=f"Projections on the step; the two sum to 1. {_band(result)}"
        )
    return figures


def _largest(result: xr.Dataset) -> Any:
    shares = _lines(
        result, _apart("massive_share"), f"share of the state's {result.sizes['rank']} largest entries"
    )
    chance = xr.full_like(shares.value.isel(row=0, drop=True), float(result.massive_share_expected))
    return curve_over_depth(
        shares.assign(null=chance.assign_attrs(name="normal entries")),
        caption=f"Dashed: a state with normal entries. Far above it are massive dimensions. {_band(result)}",
    )


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
    return {
        "How alike are every two depths?": depth_pairs(
            squares,
            caption=f"Mean over {result.sizes['passage']} passages, first positions left out. Squares of one colour "
            "along the diagonal are depths that hardly differ.",
        )
    }


def _of_kinds(result: xr.Dataset) -> dict[str, Any]:
    kinds = groups_named(result, TOKEN)[:_MOST_GROUPS]
    titles = {"norm": "Norm by category of token", "relative_step": "Relative step by category of token"}
    return {
        title: curve_over_depth(
            _of_groups(result, kinds, TOKEN, name),
            log=True,
            caption=f"Tokens after the first positions. {_band(result, mean='geometric mean')}",
        )
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
    better = drift_beaten(result)
    verdict = (
        f"Phases beat a smooth drift in {better.estimate} of resamples."
        if better.significant
        else "They do not beat a smooth drift; the lines are the best cut all the same."
    )
    caption = (
        f"Dotted: a phase begins. {verdict}"
        if result.sizes["change"]
        else "No cut into phases is worth its price: none is drawn."
    )
    return {
        "Where do the layers change together?": curves_with_phases(
            xr.Dataset({"value": signal}), as_curve(result, "phase_begins"), caption=caption
        )
    }


def _of_prompts(result: xr.Dataset) -> dict[str, Any]:
    groups = [
        group for group in groups_named(result, PROMPT) if int(curve(result, group, "norm").n.max()) > 0
    ][:_MOST_GROUPS]
    titles = {
        "norm": "Norm of the last token, by prompt category",
        "relative_step": "Relative step of the last token, by category",
        "turn": "Turn of the last token, by prompt category",
        "centred_cosine": "Neighbouring depths at the last token, by category",
    }
    ratios = ("norm", "relative_step")
    return {
        title: curve_over_depth(
            _of_groups(result, groups, PROMPT, name),
            log=name in ratios,
            caption="Last token of each prompt. "
            + _band(result, ALL_PROMPTS, "geometric mean" if name in ratios else "mean"),
        )
        for name, title in titles.items()
        if groups
    }
