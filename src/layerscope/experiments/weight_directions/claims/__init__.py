"""What directions of weights say, in sentences with the numbers that they rest on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import finding, strongest
from layerscope.evidence.findings import COMPARES_NOTHING
from layerscope.evidence.wording import ALPHA, counted, sentence
from layerscope.experiments.weight_directions.claims.depth import BY_CHANCE, depth_claims
from layerscope.experiments.weight_directions.conclude.rated import may_rate
from layerscope.experiments.weight_directions.conclude.removals import (
    direction_in_words,
    ratios,
    removed_in_words,
)
from layerscope.experiments.weight_directions.measure.pairs import LIKENESS
from layerscope.experiments.weight_directions.settings import TOKENS_OF, kind_in_words
from layerscope.results.schema import read_json
from layerscope.text.token_sets import FEWEST_SETS


def claims(result: xr.Dataset) -> list[Claim]:
    """Words, rates by kind, what exceeds rotations, the rater, removals, frequency, depth, pairs, subspaces."""
    rater = str(read_json(result, "rate_by"))
    found = [*_words(result), *(_rates(result, rater) if may_rate(result) else ())]
    found += [*_power(result, rater), *_removals(result)]
    if may_rate(result):
        found += [*_above_frequency(result, rater), *depth_claims(result, rater), *_frequency(result)]
    found += [*_pairs(result), *_subspaces(result)]
    return found or [
        Claim(
            text="No direction of this model could be rated.",
            stated=True,
            caveat="see the cautions for what was left out",
            untrained=COMPARES_NOTHING,
            select={"variable": "rate"},
        )
    ]


def _power(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    """What the rater detects of directions that are made of known sets, beside what it makes of unrelated tokens."""
    if "detected_all" not in result or rater not in result.rater.values:
        return
    here = result.sel(rater=rater)
    silent = "" if may_rate(result) else "no rate of coherent directions is reported"
    if not bool(here.detected_all.notnull().any()):
        sets = int(here.detected_all_n.fillna(0).max())
        yield Claim(
            text=sentence("Too few known token sets are single tokens of this vocabulary to test the rater"),
            stated=True,
            caveat="; ".join(filter(None, [f"{counted((sets,), 'sets')}, {FEWEST_SETS} needed", silent])),
            untrained=COMPARES_NOTHING,
            select={"variable": "detected_all", "rater": rater},
        )
        return
    for side in result.side.values:
        detected, alarms = (
            finding(result, name, unit="share", side=side, rater=rater)
            for name in ("detected_all", "false_alarms_all")
        )
        over = f"mean over {detected.n[0]} sets, directions made of {_sizes(result)} of their tokens"
        yield detected.claim(
            f"The rater ({rater}) detects {detected.estimate} of directions made of known token sets in the "
            f"{TOKENS_OF[str(side)]}, and {alarms.estimate} of those made of unrelated tokens",
            caveat="; ".join(filter(None, [over, silent and f"too few, {silent}"])),
        )


def _sizes(result: xr.Dataset) -> str:
    *most, last = (str(int(size)) for size in result["size"].values)
    return f"{', '.join(most)} or {last}"


def _rates(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    for kind in result.kind.values:
        rate = finding(result, "whole_rate", unit="share", kind=kind, rater=rater)
        if not rate.known:
            continue
        controls = {name: float(result[f"{name}_rate"].sel(kind=kind, rater=rater)) for name in _CONTROLS}
        beside = [
            f"{rate.other(value)} of {_CONTROLS[name]}"
            for name, value in controls.items()
            if not np.isnan(value)
        ]
        yield rate.claim(
            f"{kind_in_words(kind)}: {rate.estimate} of {rate.n[0]} directions are coherent",
            caveat=f"rater: {rater}; {', '.join(beside)}{_others(result, kind, rater)}",
        )
        yield from _difference(
            result,
            "above_rotations",
            f"{kind_in_words(kind)}: singular directions are coherent {{size}} {{which}} often than rotations of them",
            f"difference in coherence between singular directions and rotations of them ({kind_in_words(kind)})",
            caveat="where rotations do as well, the space is coherent and not the basis",
            kind=kind,
            rater=rater,
        )


_CONTROLS = {
    "random": "random directions",
    "whole_rotated": "rotations in the same space",
    "matched": "other tokens as frequent",
    "untrained": "an untrained twin's",
}


def _above_frequency(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    for kind in result.kind.values:
        yield from _difference(
            result,
            "above_matched",
            f"{kind_in_words(kind)}: top tokens are coherent {{size}} {{which}} often than others as frequent",
            f"difference in coherence between top tokens and others as frequent ({kind_in_words(kind)})",
            kind=kind,
            rater=rater,
        )


def _difference(
    result: xr.Dataset, name: str, says: str, nothing: str, *, caveat: str = "", **cell: Any
) -> Iterator[Claim]:
    """A difference of two shares, where it has a p."""
    found = finding(result, name, p=f"{name}_p", unit="point", units="matrices", **cell)
    if found.testable:
        said = says.format(which=found.which("more", "less"), size=found.size)
        yield found.claim(said, nothing=nothing, caveat=caveat, untrained=BY_CHANCE)


def _others(result: xr.Dataset, kind: str, rater: str) -> str:
    """What the other raters find, in short."""
    texts = []
    for other in result.rater.values:
        here = result.sel(kind=kind, rater=other)
        if other != rater and int(here.whole_rate_n):
            texts.append(f"{other} finds {float(here.whole_rate):.0%} (random {float(here.random_rate):.0%})")
    return f"; {', '.join(texts)}" if texts else ""


def _pairs(result: xr.Dataset) -> Iterator[Claim]:
    """Whether queries and keys join tokens of one word or one part of speech."""
    for name, what in LIKENESS.items():
        if f"all_pairs_{name}" not in result:
            continue
        found = finding(result, f"all_pairs_{name}", unit="point", units="heads")
        if found.known:
            here, chance = (
                replace(found, unit="share").other(float(result[f"pair_{name}{end}"].mean()))
                for end in ("_here", "")
            )
            unlike_chance = float(result.get(f"all_pairs_{name}_by_chance", 0.0)) < ALPHA
            yield replace(found, beyond=unlike_chance).claim(
                f"Pairs of tokens that queries and keys join most are of {what} {found.size} "
                f"{found.which('more', 'less')} often than any two of the tokens compared",
                nothing=f"difference in being of {what} between pairs of tokens that queries and keys join and any two",
                caveat=f"{here} of pairs against {chance}",
                untrained=BY_CHANCE,
            )


def _subspaces(result: xr.Dataset) -> Iterator[Claim]:
    share = float(result.near_equal.mean()) if result.near_equal.size else np.nan
    if not np.isnan(share):
        yield Claim(
            text=sentence(
                f"{share:.0%} of the directions have a near-equal neighbour, and are defined only together with it"
            ),
            stated=True,
            caveat=f"singular values within a ratio of {read_json(result, 'near')}",
            untrained=COMPARES_NOTHING,
            select={"variable": "near_equal"},
        )


def _frequency(result: xr.Dataset) -> Iterator[Claim]:
    most = strongest(result, "follows_frequency", "kind", by=np.abs)
    if most.known:
        yield most.claim(
            f"Rank correlation of coherence with token frequency is strongest in {kind_in_words(most.select['kind'])}: "
            f"{most.estimate}",
            caveat="a rater that follows frequency rates frequency",
            signed=True,
        )


def _removals(result: xr.Dataset) -> Iterator[Claim]:
    if "edit_selectivity" not in result:
        return
    with_ratios = result if "edit_ratio" in result else result.assign(ratios(result))  # written since
    for name in result.edit.values:
        # Where all texts say the same there is no p, and the interval decides.
        p = "edit_p" if np.isfinite(float(result.edit_p.sel(edit=name))) else "no p"
        one = finding(
            with_ratios, "edit_ratio", p=p, null=1.0, units="texts", n=_TEXTS, picked=["edit"], edit=name
        )
        if not one.known:
            continue
        if "edit_ratio" not in result:
            one = replace(one, select=dict(one.select) | {"variable": "edit_selectivity"})
        what = removed_in_words(result, str(name))
        turned = one.other(float(np.exp(result.edit_over_control.sel(edit=name))))
        yield one.claim(
            f"Removing {what} moves the logits of its own tokens {one.which('more', 'less')} than those of others: "
            f"{one.estimate} times as much",
            nothing=f"difference between the changes of its own tokens' logits and of others' by removing {what}",
            caveat=f"{turned} times as much as removing a rotation of it; not corrected for choosing the most coherent",
            untrained=("effect", "what writes a token's logit changes it in fresh weights, too"),
            signed=True,
        )


_TEXTS = ("edit_selectivity_n",)


def _words(result: xr.Dataset) -> Iterator[Claim]:
    if "answer" not in result or not result.sizes.get("found"):
        return
    first = result.isel(found=0)
    near = int((result.answer_p < ALPHA).sum())
    one = finding(result, "answer", p="answer_p", found=int(first.found))
    where = direction_in_words(int(first.found_rank), int(first.found_layer), str(first.found_matrix.item()))
    yield one.claim(
        f"Closest to {read_json(result, 'search')}: {where} ({kind_in_words(first.found_kind.item())}), cosine "
        f"{one.estimate}",
        nothing=f"direction closer to {read_json(result, 'search')} than random ones",
        caveat=f"{near} directions lie closer than random ones would, by Holm over all directions",
        untrained=BY_CHANCE,
        signed=True,
    )
