"""Sentences about what word_position_probe found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from layerscope.experiments._contract import Claim
from layerscope.experiments._summaries import at_depths, number_or_none
from layerscope.plots.numbers import number
from layerscope.results.schema import read_json

_BELOW = 0.05


def claims(result: xr.Dataset) -> list[Claim]:
    """The main score, where it begins, what it gains over its controls, and what the causal steps change."""
    said = [_best(result), _matched(result), _accuracy(result)]
    said += [_gain(result, control) for control in result["control"].values]
    said += [
        _other(result, task)
        for task in ("first", "sentences", "names", "onto unanchored")
        if task in result.task
    ]
    if "decoded_shift" in result:
        said += _moved(result)
    if "score_lost" in result:
        said += [
            _lost(result, name) for name in result.heads_out.values if not str(name).startswith("random")
        ]
    return said


def _best(result: xr.Dataset) -> Claim:
    main = result.sel(task="last")
    if np.isnan(float(result.best_depth)):
        return Claim(
            text="whether states know the word's index beyond its position is not known: no position "
            "is shared by "
            "enough words of different index",
            caveat="more test prompts, or words of more than one length",
            select={"variable": "best_depth"},
        )
    depth = _depth(main.score, main.p_adjusted)
    p = float(main.p_adjusted[depth])
    clear = p < _BELOW
    told = [int(place) for place in np.flatnonzero(main.p_adjusted.values < _BELOW)]
    return Claim(
        text="a state knows which word it ends beyond what its position tells: "
        f"{float(main.score[depth]):.0%} of the "
        f"way from chance to certainty at depth {depth}; {_where(told)}"
        if clear
        else "it cannot be shown that states tell the word's index beyond its position",
        value=float(main.score[depth]),
        low=number_or_none(main.score_low[depth]),
        high=number_or_none(main.score_high[depth]),
        p_adjusted=p,
        significant=clear,
        caveat=f"best of all depths; {int(main.score_cases)} test words in cells of equal position; p "
        "by the largest t "
        "over depths; interval over test prompts, of this depth alone",
        select={"variable": "score", "task": "last", "depth": depth},
    )


def _depth(score: xr.DataArray, p: xr.DataArray) -> int:
    """The depth that a claim is about: of the highest score that is told from nothing, else of the highest."""
    known = np.isfinite(score.values)
    told = known & (p.values < _BELOW)
    return int(np.where(told if told.any() else known, score.values, -np.inf).argmax())


def _where(told: Sequence[int]) -> str:
    return f"it can be told {at_depths(told)}" if len(told) > 1 else "it can be told at no other"


def _matched(result: xr.Dataset) -> Claim:
    here = result.sel(word_task="last")
    depth = _depth(here.matched_score, here.matched_p_adjusted)
    p = float(here.matched_p_adjusted[depth])
    clear = p < _BELOW
    return Claim(
        text="among words of equal position and equal length too: "
        f"{float(here.matched_score[depth]):.0%} of the way from "
        f"chance to certainty at depth {depth}"
        if clear
        else "among words of equal position and equal length, the word's index cannot be told from the state",
        value=number_or_none(here.matched_score[depth]),
        low=number_or_none(here.matched_score_low[depth]),
        high=number_or_none(here.matched_score_high[depth]),
        p_adjusted=number_or_none(p),
        significant=clear,
        caveat="the last piece often tells its word's length, and with the position that tells "
        "something of the index "
        "without any counting; here that is held equal",
        select={"variable": "matched_score", "word_task": "last", "depth": depth},
    )


def _accuracy(result: xr.Dataset) -> Claim:
    main, depth = result.sel(task="last"), int(result.attrs["causal_depth"])
    return Claim(
        text=f"at depth {depth} the probe names the word's index in {float(main.accuracy[depth]):.1%} "
        "of cases; "
        f"the position alone allows {float(main.ceiling):.1%}, with the word's own length "
        f"{float(read_json(result, 'ceiling_with_length')):.1%}",
        value=float(main.accuracy[depth]),
        low=number_or_none(main.accuracy_low[depth]),
        high=number_or_none(main.accuracy_high[depth]),
        caveat="the post's measure: a probe without any knowledge of words reaches the second number; "
        "it falls for "
        "later words for that reason alone "
        f"({', '.join(number(float(r)) for r in main.ceiling_recall.values if np.isfinite(r))})",
        select={"variable": "accuracy", "task": "last", "depth": depth},
    )


def _gain(result: xr.Dataset, control: str) -> Claim:
    says = read_json(result, "says")[control]
    gain = result.sel(control=control)
    depth = _depth(gain.gain, gain.gain_p_adjusted)
    p = float(gain.gain_p_adjusted[depth])
    clear = p < _BELOW
    return Claim(
        text=f"states of the model tell the index better than {_the(control, says)}: by "
        f"{number(float(gain.gain[depth]))} "
        f"at depth {depth}"
        if clear
        else "it cannot be shown at any depth that states of the model tell the index better than "
        f"{_the(control, says)}",
        value=number_or_none(gain.gain[depth]),
        low=number_or_none(gain.gain_low[depth]),
        high=number_or_none(gain.gain_high[depth]),
        p_adjusted=number_or_none(p),
        significant=clear,
        caveat="difference of scores within cells of equal position, on the same test prompts, at its "
        "best depth; p for "
        "all depths (largest t) and all controls (Holm)",
        select={"variable": "gain", "control": control, "depth": depth},
    )


def _the(control: str, says: str) -> str:
    return {
        "untrained": "those of its untrained twin",
        "types": "counts of the token types so far, without any model",
        "shuffled": "they tell boundaries that are not there (lengths in another order)",
    }.get(control, says)


_OTHERS = {
    "first": "first pieces know which word they begin",
    "sentences": "full stops know which sentence of the paragraph they end",
    "names": "names know which name of the text they are, in templates that the probe has not seen",
    "onto unanchored": "a probe trained behind one prefix works behind another, which has no full stop",
}


def _other(result: xr.Dataset, task: str) -> Claim:
    here = result.sel(task=task)
    depth = _depth(here.score, here.p_adjusted)
    p = float(here.p_adjusted[depth])
    clear = p < _BELOW
    return Claim(
        text=f"{_OTHERS[task]}: {float(here.score[depth]):.0%} of the way from chance to certainty, at "
        f"depth {depth}"
        if clear
        else f"it cannot be told that {_OTHERS[task]}",
        value=number_or_none(here.score[depth]),
        low=number_or_none(here.score_low[depth]),
        high=number_or_none(here.score_high[depth]),
        p_adjusted=number_or_none(p),
        significant=clear,
        caveat=f"within cells of equal position, best of all depths; {int(here.score_cases)} test cases",
        select={"variable": "score", "task": task, "depth": depth},
    )


def _moved(result: xr.Dataset) -> list[Claim]:
    depth, word = int(result.attrs["causal_depth"]), int(result.attrs["moved_word"])
    last = result.sizes["depth"] - 1
    decoded = result.sel(push="along the index", depth=last)
    excess = float(decoded.decoded_shift) - float(result.decoded_shift.sel(push="control", depth=last))
    shift = float(decoded.decoded_shift)
    clear = bool(decoded.decoded_shift_low > 0 or decoded.decoded_shift_high < 0)
    far = f"{number(abs(shift))} words {'later' if shift > 0 else 'earlier'} at the last depth"
    said = [
        Claim(
            text=f"moved to the next index rather than the one before, at depth {depth}, word {word + 1} is taken "
            + (
                f"for one {far}"
                if clear
                else "neither for a later nor for an earlier one, as far as can be told"
            ),
            value=float(decoded.decoded_shift),
            low=number_or_none(decoded.decoded_shift_low),
            high=number_or_none(decoded.decoded_shift_high),
            significant=clear,
            caveat="2 would be a whole step each way; the control gives "
            f"{number(float(decoded.decoded_shift) - excess)}",
            select={"variable": "decoded_shift", "push": "along the index", "depth": last},
        ),
        Claim(
            text=_prediction(result),
            value=float(result.moved_kl_gain),
            low=number_or_none(result.moved_kl_gain_low),
            high=number_or_none(result.moved_kl_gain_high),
            significant=bool(result.moved_kl_gain_low > 0 or result.moved_kl_gain_high < 0),
            caveat="divergence of the next token's distribution, less that of an equally long move "
            "that has nothing to do "
            "with the index; mean over test prompts",
            select={"variable": "moved_kl_gain"},
        ),
    ]
    if np.isfinite(result.head_shift_p.values).any():
        said.append(_attention(result))
    return said


def _prediction(result: xr.Dataset) -> str:
    if float(result.moved_kl_gain_low) > 0:
        return "moving a state along the index changes the prediction more than moving it as far elsewhere"
    if float(result.moved_kl_gain_high) < 0:
        return "moving a state along the index changes the prediction less than moving it as far elsewhere"
    return (
        "moving a state along the index changes the prediction no more and no less than an "
        "equally long move elsewhere, as far as can be told"
    )


def _attention(result: xr.Dataset) -> Claim:
    p = result.head_shift_p.values
    layer, head = (int(i) for i in np.unravel_index(np.nanargmin(p), p.shape))
    clear = float(p[layer, head]) < _BELOW
    cell = result.sel(layer=layer, head=head)
    shifted = int((p < _BELOW).sum())
    return Claim(
        text=f"{'1 head attends' if shifted == 1 else f'{shifted} heads attend'} to other words when the "
        f"state is moved along the index; most surely head {layer}.{head}, "
        f"by {number(abs(float(cell.head_shift)))} words {'later' if cell.head_shift > 0 else 'earlier'}"
        if clear
        else "no head can be shown to attend to other words when the state is moved along the index",
        value=float(cell.head_shift),
        low=number_or_none(cell.head_shift_low),
        high=number_or_none(cell.head_shift_high),
        p_adjusted=float(p[layer, head]),
        significant=clear,
        caveat="mean index of the earlier words that it attends to, moved on less moved back, less the "
        "control's; p by "
        "flipping signs of prompts, for all heads",
        select={"variable": "head_shift", "layer": layer, "head": head},
    )


def _lost(result: xr.Dataset, name: str) -> Claim:
    depth = int(result.attrs["causal_depth"])
    cell = result.sel(heads_out=name, depth=depth)
    random = [n for n in result.heads_out.values if str(n).startswith("random")]
    others = [float(result.score_lost.sel(heads_out=n, depth=depth)) for n in random]
    p = float(cell.lost_p_adjusted)
    clear = p < _BELOW and all(float(cell.score_lost) > other for other in others)
    what = "beginnings of words" if name == "word beginnings" else "the anchor"
    than = f"; as many other heads: {', '.join(number(other) for other in others)}" if others else ""
    text = f"the heads that attend most to {what} cannot be shown to be needed for the word's index at depth {depth}"
    if clear:
        lost = number(float(cell.score_lost))
        text = f"without the heads that attend most to {what}, the score at depth {depth} falls by {lost}"
    elif np.isnan(p):
        text = (
            f"whether the heads that attend most to {what} are needed is not known: too few words of different "
            "index share a position"
        )
    return Claim(
        text=text,
        value=number_or_none(cell.score_lost),
        low=number_or_none(cell.score_lost_low),
        high=number_or_none(cell.score_lost_high),
        p_adjusted=number_or_none(p),
        significant=clear,
        caveat=f"the probe was trained with all heads; outputs are replaced by their mean{than}",
        select={"variable": "score_lost", "heads_out": name, "depth": depth},
    )
