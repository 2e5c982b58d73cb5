"""The state's path in pictures: of passages, then of prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    "Does each step continue the last?",
)
_SAME = 0.05
"""Share of a line's height by which another must differ to be drawn beside it."""


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
    return {"later tokens": (PASSAGES, name), "first token": (FIRST, name)}


def _of_passages(result: xr.Dataset) -> dict[str, Any]:
    return {
        "How long is the state at each depth?": curve_over_depth(
            _lines(result, _apart("norm"), "norm of the residual stream"),
            log=True,
            clip=True,
            caption=f"{_band(result, mean='geometric mean')} A first token that grows apart marks an attention sink.",
        ),
        "How far does each layer move the state?": _steps(result),
        "Does each step continue the last?": curve_over_depth(
            _lines(result, _apart("turn"), "cosine between a layer's step and the one before it"),
            caption=f"Above 0 a layer goes on, below 0 it turns back. {_band(result)}",
        ),
        "Growth of the norm in each layer": _growth(result),
        "How far does each layer turn the state?": _turned(result),
        **_of_parts(result),
        **_of_similarity(result),
        **_of_kinds(result),
        **_of_phases(result),
    }


def _without_massive(
    result: xr.Dataset, every: str, fewer: str, shown: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> tuple[dict[str, tuple[str, str]], str]:
    """Lines of a quantity with and without the massive dimensions, or what to say where these lie on one another."""
    whole, rest = (shown(curve(result, PASSAGES, one).value.values) for one in (every, fewer))
    if np.allclose(whole, rest, rtol=_SAME, equal_nan=True):
        return {}, f" Leaving out the massive dimensions changes it by less than {_SAME:.0%}."
    return {"without massive dimensions": (PASSAGES, fewer)}, ""


def _steps(result: xr.Dataset) -> Any:
    fewer, same = _without_massive(result, "relative_step", "relative_step_without")
    return curve_over_depth(
        _lines(result, _apart("relative_step") | fewer, "length of a layer's step over the state's"),
        log=True,
        clip=True,
        caption=f"1: a step as long as the state. {_band(result, mean='geometric mean')}{same}",
    )


def _turned(result: xr.Dataset) -> Any:
    """Cosines near 1 lie on one another: their distance from 1 does not."""
    fewer, same = _without_massive(result, "successive_cosine", "cosine_without", lambda cosine: 1 - cosine)
    centred = {"mean state taken away": (PASSAGES, "centred_cosine")}
    lines = _lines(result, {"as it is": (PASSAGES, "successive_cosine")} | centred | fewer, "")
    return curve_over_depth(
        _distance(lines),
        log=True,
        clip=True,
        caption=f"0: the same direction before and after; a growing norm alone makes it fall. {_band(result)}{same}",
    )


def _distance(cosines: xr.Dataset) -> xr.Dataset:
    """1 − cosine with its interval."""
    turned = {"value": "value", "low": "high", "high": "low"}
    lines = cosines.assign({end: 1 - cosines[of] for end, of in turned.items()})
    lines["value"].attrs = {
        "long_name": "cosine distance of the states before and after a layer",
        "units": "1",
    }
    return lines


def _growth(result: xr.Dataset) -> Any:
    first, last = int(result.attrs["growth_first"]), int(result.attrs["growth_last"])
    whole = curve(result, PASSAGES, "growth")
    null = xr.full_like(whole.value, float(result.growth_rate)).assign_attrs(name="rate over depth")
    return curve_over_depth(
        whole.assign(null=null),
        clip=True,
        caption=f"Dashed: the rate from depth {first} to {last}. {_band(result)}",
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
            clip=True,
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
        "turn": "Does each step continue the last, by category?",
        "centred_cosine": "Turn of the last token, by prompt category",
    }
    ratios = ("norm", "relative_step")
    figures = {}
    for name, title in titles.items() if groups else ():
        lines = _of_groups(result, groups, PROMPT, name)
        mean = "geometric mean" if name in ratios else "mean"
        figures[title] = curve_over_depth(
            _distance(lines) if name == "centred_cosine" else lines,
            log=name != "turn",
            clip=name != "turn",
            caption=f"Last token of each prompt. {_band(result, ALL_PROMPTS, mean)}",
        )
    return figures
