"""Sentences about what word_formation found, and its curve over depth."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence.curves import as_curve
from layerscope.evidence.findings import number_or_none
from layerscope.plots.numbers import number
from layerscope.results.schema import read_json


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """Recovery by the last piece's state; the null is that of made-up words."""
    last = result.sel(piece="last piece")
    null = last.mean_recovered.sel(group="made up") if "made up" in result.group.values else None
    return as_curve(last.sel(group="words"), "mean_recovered", null=null)


def claims(result: xr.Dataset) -> list[Claim]:
    """Where words are joined, whether made-up ones are alike, by which part, and what twins and probes say."""
    said = [_crossing(result), _gap(result), _stages(result)]
    if "mean_likeness" in result:
        said += [_likeness(result), _named(result)]
    if np.isfinite(float(result.erasure)):
        said.append(_erasure(result))
    return said


def _crossing(result: xr.Dataset) -> Claim:
    words = result.sel(group="words")
    used, every = int(words.mean_crossing_n), int((result.kind == "words").sum())
    at = number_or_none(words.mean_crossing)
    by_pieces = {
        str(group): float(result.mean_crossing.sel(group=group))
        for group in result.group.values
        if str(group).startswith("words,")
    }
    each = "; ".join(f"{name.removeprefix('words, ')}: {number(value)}" for name, value in by_pieces.items())
    return Claim(
        text="what the earlier pieces say of the next token has reached the last piece at depth "
        f"{number(at)}, on average"
        if at is not None
        else "where the pieces of words are joined is not known: no pair has a crossing",
        value=at,
        low=number_or_none(words.mean_crossing_low),
        high=number_or_none(words.mean_crossing_high),
        caveat=f"{used} of {every} pairs of words"
        f"{'; the others have predictions too alike, or no crossing' * (used < every)}"
        f"{f'; by number of pieces: {each}' * bool(each)}",
        select={"variable": "mean_crossing", "group": "words"},
    )


def _gap(result: xr.Dataset) -> Claim:
    gap = number_or_none(result.crossing_gap)
    clear = gap is not None and bool(result.crossing_gap_low > 0 or result.crossing_gap_high < 0)
    if not clear:
        text = (
            "it cannot be told that words are joined at another depth than the same pieces before a "
            "last piece that makes no word"
        )
    else:
        order = "earlier" if float(result.crossing_gap) < 0 else "later"
        text = f"words are joined {number(abs(float(result.crossing_gap)))} blocks {order} than made-up ones"
    return Claim(
        text=text,
        value=gap,
        low=number_or_none(result.crossing_gap_low),
        high=number_or_none(result.crossing_gap_high),
        significant=clear,
        caveat="made up: the same earlier pieces, and a last piece with which they are no word of the "
        "list; pairs resampled",
        select={"variable": "crossing_gap"},
    )


def _stages(result: xr.Dataset) -> Claim:
    words = result.sel(group="words")
    behind = number_or_none(words.mlp_behind_attention)
    known = behind is not None and not np.isnan(float(words.mlp_behind_attention_low))
    clear = known and bool(words.mlp_behind_attention_low > 0 or words.mlp_behind_attention_high < 0)
    attention, mlp = (float(words.mean_recovered_whole_part.sel(site=site)) for site in ("attention", "MLP"))
    if behind is None:
        text = "this model does not tell attention's part from the MLP's"
    elif clear:
        order = "behind" if behind > 0 else "before"
        text = (
            f"at the last piece, what MLPs add matters {number(abs(behind))} blocks {order} what "
            "attention adds"
        )
    else:
        text = (
            "at the last piece, the MLPs' part lies neither before nor behind attention's, as far "
            "as can be told"
        )
    return Claim(
        text=text,
        value=behind,
        low=number_or_none(words.mlp_behind_attention_low),
        high=number_or_none(words.mlp_behind_attention_high),
        significant=clear,
        caveat="difference of centroids of single blocks' recoveries, pair by pair; attention's part "
        "of all blocks "
        f"with the MLPs' as it was recovers {number(attention)} of the prediction, the MLPs' with "
        f"attention's as it was {number(mlp)}",
        select={"variable": "mlp_behind_attention", "group": "words"},
    )


_WAYS = {
    "merges": "split where the tokenizer's last merge joined them",
    "blank": "without the blank before them",
    "capital": "with a capital",
}


def _likeness(result: xr.Dataset) -> Claim:
    depth = int(np.nanargmax(result.likeness_gain.values))
    cell = result.sel(depth=depth)
    clear = bool(cell.likeness_gain_low > 0)
    return Claim(
        text=f"words {_WAYS[result.attrs['twin']]}: the last piece's state comes nearer to the single "
        "token's than behind "
        f"another word's first piece, most at depth {depth}"
        if clear
        else f"words {_WAYS[result.attrs['twin']]}: it cannot be told that their last piece's state comes nearer "
        "to the single token's than behind another word's first piece",
        value=float(cell.likeness_gain),
        low=number_or_none(cell.likeness_gain_low),
        high=number_or_none(cell.likeness_gain_high),
        significant=clear,
        caveat="difference of centred cosines above other words', at its best depth; "
        f"{result.sizes['word']} words; the "
        "interval is of this depth alone",
        select={"variable": "likeness_gain", "depth": depth},
    )


def _named(result: xr.Dataset) -> Claim:
    split = result.sel(form="split")
    depth = int(np.nanargmax(split.mean_found_twin.values))
    cell = split.sel(depth=depth)
    return Claim(
        text=f"at best (depth {depth}) {float(cell.mean_found_twin):.0%} of {result.sizes['word']} split words have "
        "their own single token nearest",
        value=float(cell.mean_found_twin),
        low=number_or_none(cell.mean_found_twin_low),
        high=number_or_none(cell.mean_found_twin_high),
        caveat=f"chance is {1 / result.sizes['word']:.1%}; behind another first piece it is "
        f"{float(result.mean_found_twin.sel(form='swapped', depth=depth)):.0%}, by the last piece alone",
        select={"variable": "mean_found_twin", "form": "split", "depth": depth},
    )


def _erasure(result: xr.Dataset) -> Claim:
    first, last = read_json(result, "erasure_depths")
    clear = bool(result.erasure_low > 0 or result.erasure_high < 0)
    value = float(result.erasure)
    return Claim(
        text=f"from depth {first} to {last} the piece before fades {'more' if value > 0 else 'less'} "
        "within words than across them"
        if clear
        else f"from depth {first} to {last} the piece before fades within words as it does across "
        "them, as far as can be told",
        value=value,
        low=number_or_none(result.erasure_low),
        high=number_or_none(result.erasure_high),
        significant=clear,
        caveat=f"fall of the probe's probability: {number(float(result.fall_within))} within, "
        f"{number(float(result.fall_across))} across; {read_json(result, 'n_classes')} classes; held-out words",
        select={"variable": "erasure"},
    )
