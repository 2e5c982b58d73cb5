"""What attention_knockout says in sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence.distances import NOT_OWED_TO_TRAINING, said_of_range
from layerscope.evidence.findings import number_or_none
from layerscope.evidence.places import places_in_words
from layerscope.experiments._knockout_items import SUBJECT
from layerscope.experiments._knockout_maps import LEVEL
from layerscope.experiments._knockout_summary import ALL
from layerscope.plots.numbers import number

_FATES = {
    "renormalise": "spread over the other keys",
    "first": "sent to the first token",
    "mean": "kept on mean values",
}


def claims(result: xr.Dataset) -> list[Claim]:
    """Sentences, each with the cells that it rests on."""
    found = []
    if "effect" in result:
        found += [
            _index(result),
            _beyond_control(result),
            _strongest(result, ""),
            *_controls(result, ""),
            _agreement(result, ""),
        ]
    if "prompt_effect" in result:
        found += [_subject(result), *_categories(result), *_controls(result, "prompt_")]
    return [claim for claim in found if claim is not None]


def _ends(result: xr.Dataset, name: str, **cell: Any) -> tuple[float, float, float]:
    value, low, high = (float(result[f"{name}{end}"].sel(cell)) for end in ("", "_low", "_high"))
    return value, low, high


def _first(result: xr.Dataset) -> dict[str, Any]:
    """The fate and the window that claims are about."""
    return {"fate": str(result.fate.values[0]), "window": int(result.window.values[0])}


def _blocks(result: xr.Dataset) -> str:
    width = int(result.window.values[0])
    return "one block" if width == 1 else f"{width} blocks"


def _index(result: xr.Dataset) -> Claim:
    cell = _first(result)
    value, low, high = _ends(result, "far_less_near", **cell)
    farthest = str(result.edges.values[int(result.attrs["bands"]) - 1])
    near, far = said_of_range(str(result.edges.values[0])), said_of_range(farthest)
    told = bool(low > 0 or high < 0)
    if np.isnan(value):
        seen = bool(np.isfinite(result.effect.sel(edges=farthest, **cell)).any())
        text = (
            f"no block's reading of what is {far}, or of what is {near}, moves any prediction"
            if seen
            else f"no layer can see what is {far}: there is nothing to compare"
        )
    elif told:
        where = "deeper" if value > 0 else "shallower"
        text = f"what is {far} is needed {where} than what is {near}, by {number(abs(value))} blocks"
    else:
        text = (
            f"what is {far} is not distinguishably needed deeper or shallower than what is {near} "
            f"({number(value)} blocks)"
        )
    others = [
        f"{_FATES[str(fate)]} {number(float(result.far_less_near.sel(fate=fate, window=cell['window'])))}"
        for fate in result.fate.values[1:]
    ]
    beside = "; ".join(
        [
            f"centroid of depth of the divergence, mean over {result.attrs['passages']} passages, attention "
            f"{_FATES[cell['fate']]}",
            *others,
            f"keys cut at random {number(float(result.far_less_near_of_control.values[0]))}",
            f"the attention that was cut {number(float(result.far_less_near_of_mass.values[0]))}",
            NOT_OWED_TO_TRAINING,
        ]
    )
    return Claim(
        text=text,
        value=number_or_none(value),
        low=number_or_none(low),
        high=number_or_none(high),
        significant=told,
        caveat=beside,
        select={"variable": "far_less_near", **cell},
    )


def _beyond_control(result: xr.Dataset) -> Claim | None:
    """Whether the index says more than where attention lies."""
    window = int(result.window.values[0])
    value, low, high = _ends(result, "far_less_near_beyond_control", window=window)
    if np.isnan(value):
        return None
    told = bool(low > 0 or high < 0)
    control = float(result.far_less_near_of_control.sel(window=window))
    return Claim(
        text=f"random keys ({result.attrs['control']}) give this index a value of {number(control)} blocks; that of "
        "the ranges is "
        + (
            f"{'larger' if value > 0 else 'smaller'} by {number(abs(value))}"
            if told
            else "not distinguishably larger or smaller"
        ),
        value=value,
        low=number_or_none(low),
        high=number_or_none(high),
        significant=told,
        caveat="what random keys show too comes from how much attention lies where, not from what stands there; "
        "compared on the targets and blocks that have such keys",
        select={"variable": "far_less_near_beyond_control", "window": window},
    )


def _strongest(result: xr.Dataset, prefix: str) -> Claim | None:
    """The ranges that cost most, by the lost log-probability of the actual next token."""
    cell = _first(result)
    bands = result.edges.values[: int(result.attrs["bands"])]
    lost = result.lost.sel(cell).sel(edges=bands)
    p = result.lost_p.sel(cell).sel(edges=bands)
    if not np.isfinite(lost).any():
        return None
    row, layer = np.unravel_index(int(np.nanargmax(lost.values)), lost.shape)
    edges, block = str(bands[row]), int(result.layer.values[layer])
    told, known = int((p < LEVEL).sum()), int(np.isfinite(p).sum())
    return _costliest(
        result,
        "",
        cell | {"edges": edges, "layer": block},
        lambda nats: (
            f"{told} of {known} cuts of one range in {_blocks(result)} distinguishably change the probability "
            f"of the actual next token; the costliest is of what is {said_of_range(edges)}, at layer {block}: {nats}"
        ),
    )


def _costliest(result: xr.Dataset, prefix: str, cell: dict[str, Any], text: Callable[[str], str]) -> Claim:
    """The cell of the largest loss of log-probability, with what was cut there."""
    name, units = f"{prefix}lost", "prompts" if prefix else "passages"
    value, low, high = _ends(result, name, **cell)
    adjusted = float(result[f"{name}_p"].sel(cell))
    removed = float(result[f"{prefix}removed"].sel({k: v for k, v in cell.items() if k != "fate"}))
    return Claim(
        text=text(f"{number(value)} nat"),
        value=value,
        low=number_or_none(low),
        high=number_or_none(high),
        p_adjusted=number_or_none(adjusted),
        significant=bool(adjusted < LEVEL),
        caveat=f"mean over {result.attrs[units]} {units}, signs dealt to whole {units}, corrected for the whole map; "
        f"{removed:.0%} of the block's attention was cut there; the cell shown is the largest, so its height is "
        "flattered",
        select={"variable": name, **cell},
    )


def _controls(result: xr.Dataset, prefix: str) -> list[Claim]:
    """Where each set is missed more than keys drawn at random."""
    bands = [str(edges) for edges in result.edges.values[: int(result.attrs["bands"])]] if not prefix else []
    found = [_control(result, prefix, edges) for edges in (bands or [SUBJECT])]
    return [claim for claim in found if claim is not None]


def _control(result: xr.Dataset, prefix: str, edges: str) -> Claim | None:
    name, window = f"{prefix}relative_excess", int(result.window.values[0])
    row = {f"{prefix}edges": edges, "window": window}
    excess, p = result[name].sel(row).values, result[f"{name}_p"].sel(row).values
    if not np.isfinite(p).any():
        return None
    layers, surest = result.layer.values, int(np.nanargmin(p))
    told = [
        f"{word} at {places_in_words(layers[(p < LEVEL) & (sign * excess > 0)].tolist(), 'layer')}"
        for word, sign in (("more", 1), ("less", -1))
        if ((p < LEVEL) & (sign * excess > 0)).any()
    ]
    cell = row | {"layer": int(layers[surest])}
    value, low, high = _ends(result, name, **cell)
    held, drawn = (float(result[f"{prefix}{kind}removed"].sel(cell)) for kind in ("compared_", "control_"))
    what = edges if prefix else f"what is {said_of_range(edges)}"
    known = int(np.isfinite(p).sum())
    how = f"missed {', '.join(told)}" if told else "not distinguishably missed more or less"
    return Claim(
        text=f"{what} is {how} than keys drawn at random ({known} layer{'s' if known > 1 else ''} compared)",
        value=number_or_none(value),
        low=number_or_none(low),
        high=number_or_none(high),
        p_adjusted=float(np.nanmin(p)),
        significant=bool(told),
        caveat=f"value: at layer {cell['layer']}, the surest, effect less that of random keys over their sum; the "
        f"cut holds {held:.1%} of attention there and the random keys {drawn:.1%}; signs dealt to whole "
        f"{'prompts' if prefix else 'passages'}, corrected for the whole map; {NOT_OWED_TO_TRAINING}",
        select={"variable": name, **cell},
    )


def _agreement(result: xr.Dataset, prefix: str) -> Claim | None:
    """In how many cells that one fate tells all of them do."""
    window = int(result.window.values[0])
    if result.sizes["fate"] < 2:
        return None
    bands = result.edges.values[: int(result.attrs["bands"])]
    here = result.sel(edges=bands, window=window)
    p = here.lost_p.isel(fate=0)
    several = here.fates_here > 1
    told = (p < LEVEL) & several
    all_of_them = told & (here.fates_told == here.fates_here)
    shares = here.agreement.where(told).values
    if not np.isfinite(shares).any():  # nothing told, or only cells whose effects have no ratio
        return None
    middle = float(np.nanmedian(shares))
    return Claim(
        text=f"in {int(all_of_them.sum())} of the {int(told.sum())} cells that are told, every fate of the cut "
        "attention tells the same; the median ratio of the smallest to the largest effect there is "
        f"{number(middle)}",
        value=None,
        caveat="what fates disagree about depends on what is put in the place of the cut attention",
        select={"variable": "fates_told", "window": window},
    )


def _subject(result: xr.Dataset) -> Claim:
    """The layer at which the last token most needs the subject."""
    cell = _first(result) | {"prompt_edges": SUBJECT}
    lost = result.prompt_lost.sel(cell).values
    if not np.isfinite(lost).any():
        return Claim(
            text="no layer lets the last token see the subject",
            caveat=f"{result.attrs['prompts']} prompts",
            select={"variable": "prompt_lost", **cell},
        )
    layer = int(result.layer.values[int(np.nanargmax(lost))])
    p = result.prompt_lost_p.sel(cell)
    told, known = int((p < LEVEL).sum()), int(np.isfinite(p).sum())
    return _costliest(
        result,
        "prompt_",
        cell | {"layer": layer},
        lambda nats: (
            f"cut from the subject in {_blocks(result)}, the last token loses most at layer {layer}: {nats} "
            f"of the answer's log-probability; told from 0 at {told} of {known} layers"
        ),
    )


def _categories(result: xr.Dataset) -> list[Claim]:
    """Where in depth each category needs its subject, and whether categories differ."""
    found = []
    for name in result.category.values:
        value, low, high = _ends(result, "subject_centroid", category=name)
        if str(name) == ALL or np.isnan(value):
            continue
        found.append(
            Claim(
                text=f"{name}: the subject is needed about layer {number(value)}",
                value=value,
                low=number_or_none(low),
                high=number_or_none(high),
                caveat="centroid of depth of the divergence, mean over prompts",
                select={"variable": "subject_centroid", "category": str(name)},
            )
        )
    for place, name in enumerate(result.contrast.values):
        p = float(result.p_adjusted[place])
        if p < LEVEL:
            value, low, high = (float(result[f"difference{end}"][place]) for end in ("", "_low", "_high"))
            found.append(
                Claim(
                    text=f"{name}: the subject is needed {number(abs(value))} blocks "
                    f"{'deeper' if value > 0 else 'less deep'} in the first",
                    value=value,
                    low=number_or_none(low),
                    high=number_or_none(high),
                    p_adjusted=p,
                    significant=True,
                    caveat="permutation of prompts between categories, corrected for all pairs",
                    select={"variable": "difference", "contrast": str(name)},
                )
            )
    return found
