"""Quantities of word_position_probe in sentences: the score, its controls, and what the causal steps change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import finding, head_name, places_in_words, strongest
from layerscope.results.schema import read_json

_ALIKE: Untrained = ("effect", "sums of embeddings mark boundaries without any training")
_SHARED = "no position is shared by enough words of different index"
_CONTROLS = {
    "untrained": "the untrained twin's states",
    "types": "counts of the token types so far",
    "shuffled": "boundaries in another order",
}
_SUBJECTS = {
    "first": "word index at first pieces",
    "sentences": "sentence index at full stops",
    "names": "name index across held-out templates",
    "onto unanchored": "word index behind a prefix that the probe has not seen",
}


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """The main score, what it gains over its controls, what the causal steps change, and other coordinates."""
    yield _decodable(result)
    for control in result["control"].values:
        yield _gain(result, str(control))
    if "decoded_shift" in result:
        yield _steered(result)
        yield _prediction(result)
        if np.isfinite(result.head_shift_p).any():
            yield _attention(result)
    yield _matched(result)
    for task in _SUBJECTS:
        if task in result.task:
            yield _other(result, task)
    yield _accuracy(result)
    if "score_lost" in result:
        for name in map(str, result.heads_out.values):
            if not name.startswith("random"):
                yield _ablated(result, name)


def _decodable(result: xr.Dataset) -> Claim:
    best = strongest(
        result, "score", over="depth", p="p_adjusted", unit="share", units="prompts", task="last"
    )
    elsewhere = [depth for depth in best.also if depth != best.select["depth"]]
    also = f", and significantly so at {places_in_words(elsewhere, 'depth')}" if elsewhere else ""
    return best.claim(
        f"word index is decodable beyond absolute position at depth {best.select['depth']}: {best.estimate} of the "
        f"possible gain{also}",
        nothing="decodability of word index beyond absolute position",
        unknown=_SHARED,
        caveat=f"{int(result.score_cases.sel(task='last'))} test words in cells of equal position",
        untrained=_ALIKE,
    )


def _matched(result: xr.Dataset) -> Claim:
    best = strongest(
        result,
        "matched_score",
        over="depth",
        p="matched_p_adjusted",
        unit="share",
        units="prompts",
        word_task="last",
    )
    return best.claim(
        f"among words of equal position and length, word index is decodable at depth {best.select['depth']}: "
        f"{best.estimate} of the possible gain",
        nothing="decodability of word index among words of equal position and length",
        unknown=_SHARED,
        caveat="the last piece often gives away its word's length",
        untrained=_ALIKE,
    )


def _accuracy(result: xr.Dataset) -> Claim:
    depth, main = int(result.attrs["causal_depth"]), result.sel(task="last")
    right = finding(result, "accuracy", unit="share", task="last", depth=depth)
    with_length = float(read_json(result, "ceiling_with_length"))
    return right.claim(
        f"at depth {depth} the probe names the word's index in {right.estimate} of cases; absolute position alone "
        f"allows {right.other(float(main.ceiling))}, with the word's length {right.other(with_length)}",
        caveat="position alone does worse on later words",
    )


def _gain(result: xr.Dataset, control: str) -> Claim:
    gain = strongest(result, "gain", over="depth", unit="point", units="prompts", control=control)
    than = _CONTROLS[control]
    return gain.claim(
        f"word index is {gain.size} more decodable from states at depth {gain.select['depth']} than from {than}",
        nothing=f"gain of states over {than} in decoding word index",
        unknown=_SHARED,
        caveat="within cells of equal position, on the same test prompts",
        untrained=("null", "an untrained model is its own control"),
    )


def _other(result: xr.Dataset, task: str) -> Claim:
    subject = _SUBJECTS[task]
    best = strongest(result, "score", over="depth", p="p_adjusted", unit="share", units="prompts", task=task)
    return best.claim(
        f"{subject} is decodable beyond absolute position at depth {best.select['depth']}: {best.estimate} of the "
        "possible gain",
        nothing=f"decodability of {subject} beyond absolute position",
        unknown=_SHARED,
        caveat=f"{int(result.score_cases.sel(task=task))} test cases in cells of equal position",
        untrained=_ALIKE,
    )


# -- causal steps ---------------------------------------------------------------------------------------


def _steering(result: xr.Dataset) -> str:
    word, depth = int(result.attrs["moved_word"]) + 1, int(result.attrs["causal_depth"])
    return f"steering word {word} at depth {depth}"


def _steered(result: xr.Dataset) -> Claim:
    last = int(result.depth.values[-1])
    shift = finding(result, "decoded_shift", units="prompts", push="along the index", depth=last)
    control = finding(result, "decoded_shift", push="control", depth=last)
    word, depth = int(result.attrs["moved_word"]) + 1, int(result.attrs["causal_depth"])
    return shift.claim(
        f"at depth {depth}, steering word {word} by +1 rather than −1 shifts the last-depth probe {shift.size} "
        f"{shift.which('later', 'earlier')}",
        nothing=f"shift of the last-depth probe by {_steering(result)}",
        caveat=f"full effect 2 words; steered as far elsewhere {control.estimate}",
        untrained=("effect", "residual streams keep what is added to them"),
    )


def _prediction(result: xr.Dataset) -> Claim:
    gain = finding(result, "moved_kl_gain", units="prompts")
    return gain.claim(
        f"{_steering(result)} along the index changes the prediction {gain.size} "
        f"{gain.which('more', 'less')} than steering it as far elsewhere",
        nothing=f"difference between {_steering(result)} along the index and as far elsewhere, in the prediction",
        caveat="divergence of the next token's distribution",
        untrained=("effect", "a probe's directions are such as states differ along, in fresh weights too"),
    )


def _attention(result: xr.Dataset) -> Claim:
    most = strongest(
        result, "head_shift", over=("layer", "head"), by=np.abs, p="head_shift_p", units="prompts"
    )
    head = head_name(most.select["layer"], most.select["head"])
    return most.claim(
        f"{_steering(result)} by +1 rather than −1 makes {head} attend {most.size} "
        f"{most.which('later', 'earlier')}",
        nothing=f"change of any head's attention by {_steering(result)}",
        caveat=f"{most.clear} of {most.family} heads are significant",
        untrained=("effect", "queries change with any added vector"),
    )


def _ablated(result: xr.Dataset, name: str) -> Claim:
    depth = int(result.attrs["causal_depth"])
    lost = finding(
        result, "score_lost", p="lost_p_adjusted", unit="point", units="prompts", heads_out=name, depth=depth
    )
    others = [
        finding(result, "score_lost", unit="point", heads_out=str(one), depth=depth)
        for one in result.heads_out.values
        if str(one).startswith("random")
    ]
    lost = replace(lost, beyond=all(lost.value > other.value for other in others))
    what = "beginnings of words" if name == "word beginnings" else "the anchor"
    random = (
        f"random heads {', '.join(lost.other(other.value) for other in others)}"
        if others and lost.known
        else ""
    )
    return lost.claim(
        f"mean-ablating the heads that attend most to {what} lowers the score at depth {depth} by {lost.size}",
        nothing=f"loss of the score at depth {depth} by mean-ablating the heads that attend most to {what}",
        unknown=_SHARED,
        caveat=random,
        untrained=("not applicable", "heads are chosen by what training made of them"),
    )
