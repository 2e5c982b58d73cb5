"""What directions of weights say, in sentences with the numbers that they rest on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Untrained
from layerscope.evidence import finding, strongest
from layerscope.evidence.wording import ALPHA, counted, null_sentence, p_in_words, sentence
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
    """Rates by kind, what exceeds rotations, depth, the last layer, subspaces, frequency, removals, words."""
    rater = str(read_json(result, "rate_by"))
    found = [*_power(result, rater)]
    if may_rate(result):
        found += [*_rates(result, rater), *_above_frequency(result, rater), *_depth(result, rater)]
        found += [*_last_layer(result, rater), *_sinks(result, rater), *_frequency(result)]
    found += [*_pairs(result), *_subspaces(result), *_removals(result), *_words(result)]
    return found or [
        Claim(
            text="No direction of this model could be rated.",
            stated=True,
            caveat="see the cautions for what was left out",
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
            caveat=f"rater: {rater}{_others(result, kind, rater)}; {', '.join(beside)}; directions of a matrix are "
            "taken as independent",
        )
        yield from _difference(
            result,
            "above_rotations",
            f"{kind_in_words(kind)}: singular directions are coherent {{size}} {{which}} often than rotations of them",
            f"difference in coherence between singular directions and rotations of them ({kind_in_words(kind)})",
            caveat="mean over matrices; p of the pooled rates, Holm over kinds; where rotations do as well, the space "
            "is coherent and not the basis",
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
            caveat="mean over matrices; p of the pooled rates, Holm over kinds",
            kind=kind,
            rater=rater,
        )


_BY_CHANCE: Untrained = ("null", "directions and tokens of fresh weights are at random")


def _difference(
    result: xr.Dataset, name: str, says: str, nothing: str, *, caveat: str, **cell: Any
) -> Iterator[Claim]:
    """A difference of two shares, where it has a p."""
    found = finding(result, name, p=f"{name}_p", unit="point", units="matrices", **cell)
    if found.testable:
        said = says.format(which=found.which("more", "less"), size=found.size)
        yield found.claim(said, nothing=nothing, caveat=caveat, untrained=_BY_CHANCE)


def _others(result: xr.Dataset, kind: str, rater: str) -> str:
    """What the other raters find, in short."""
    texts = []
    for other in result.rater.values:
        here = result.sel(kind=kind, rater=other)
        if other != rater and int(here.whole_rate_n):
            texts.append(f"{other} finds {float(here.whole_rate):.0%} (random {float(here.random_rate):.0%})")
    return f"; {', '.join(texts)}" if texts else ""


def _depth(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    """A line over depth, and what it leaves, where they are significant; and one sentence on all other kinds."""
    known = [str(kind) for kind in result.kind.values if _has_p(result, "slope", kind, rater)]
    plain = []
    for kind in known:
        cell: dict[str, Any] = {"kind": kind, "rater": rater}
        slope = finding(result, "slope", p="slope_p", unit="point", **cell)
        bend = finding(result, "structure", p="structure_p", **cell)
        said = kind_in_words(kind)
        if slope.significant:
            yield slope.claim(
                f"{said}: the rate of coherent directions {slope.which('rises', 'falls')} by {slope.size} from the "
                "first layer to the last",
                nothing=f"trend of the rate over depth ({said})",
                caveat="a weighted straight line; Holm over kinds, directions taken as independent",
                untrained=_BY_CHANCE,
            )
        if bend.significant:
            freedom = int(result.structure_freedom.sel(cell))
            yield bend.claim(
                f"{said}: the rate of coherent directions bends over depth, more than a straight line allows",
                nothing=f"bend of the rate over depth ({said})",
                caveat=f"value: χ² on {freedom} degrees of freedom beyond the line; Holm over kinds, directions taken "
                "as independent",
                untrained=_BY_CHANCE,
            )
        plain += [] if slope.significant or bend.significant else [kind]
    if plain:
        of = "any kind" if plain == known else ", ".join(map(kind_in_words, plain))
        bends = [kind for kind in plain if _has_p(result, "structure", kind, rater)]
        what = "trend or bend" if bends else "trend"
        yield _none(
            result, ("slope_p", "structure_p"), f"{what} of the rate over depth in {of}", plain, rater
        )


def _last_layer(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    known = [str(kind) for kind in result.kind.values if _has_p(result, "last_block", kind, rater)]
    found = [
        finding(result, "last_block", p="last_block_p", unit="point", kind=k, rater=rater) for k in known
    ]
    for kind, one in zip(known, found, strict=True):
        if one.significant:
            yield one.claim(
                f"{kind_in_words(kind)}: directions of the last layer are coherent {one.size} "
                f"{one.which('more', 'less')} often than those of the others",
                nothing=f"difference in the rate between the last layer and the others ({kind_in_words(kind)})",
                caveat="score test of two proportions, Holm over kinds; interval of that test, of this kind alone",
                untrained=_BY_CHANCE,
            )
    if known and not any(one.significant for one in found):
        nothing = "difference in the rate between the last layer and the others in any kind"
        yield _none(result, ("last_block_p",), nothing, known, rater)


def _sinks(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    """Where rates go with attention to the first token, or that none does."""
    if "with_sink" not in result:
        return
    known = [str(kind) for kind in result.kind.values if _has_p(result, "with_sink", kind, rater)]
    found = [finding(result, "with_sink", p="with_sink_p", kind=kind, rater=rater) for kind in known]
    for kind, one in zip(known, found, strict=True):
        if one.significant:
            yield one.claim(
                f"{kind_in_words(kind)}: layers with more coherent directions give the first token "
                f"{one.which('more', 'less')} attention, rank correlation {one.estimate}",
                nothing=f"correlation of the rate with attention to the first token ({kind_in_words(kind)})",
                caveat="over layers; p by orders of stretches of layers, Holm over kinds",
                signed=True,
                untrained=_BY_CHANCE,
            )
    if known and not any(one.significant for one in found):
        nothing = "correlation over layers of the rate with attention to the first token in any kind"
        yield _none(result, ("with_sink_p",), nothing, known, rater)


def _has_p(result: xr.Dataset, name: str, kind: object, rater: str) -> bool:
    return bool(result[f"{name}_p"].sel(kind=kind, rater=rater).notnull())


def _none(result: xr.Dataset, p: Sequence[str], nothing: str, kinds: Sequence[str], rater: str) -> Claim:
    """That nothing of a kind was found in several kinds, with the smallest p among them."""
    smallest = float(np.nanmin([result[one].sel(kind=list(kinds), rater=rater).min() for one in p]))
    return Claim(
        text=null_sentence(nothing, f"smallest {p_in_words(smallest)}"),
        significant=False,
        stated=True,
        caveat="p by Holm over kinds",
        select={"variable": p[0], "rater": rater},
    )


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
            yield found.claim(
                f"Pairs of tokens that queries and keys join most are of {what} {found.size} "
                f"{found.which('more', 'less')} often than any two of the tokens compared",
                nothing=f"difference in being of {what} between pairs of tokens that queries and keys join and any two",
                caveat=f"mean over {counted(found.n, 'heads')}; {here} of pairs against {chance}; pairs are looked for "
                "among the tokens at the ends of each head's query and key sides",
            )


def _subspaces(result: xr.Dataset) -> Iterator[Claim]:
    share = float(result.near_equal.mean()) if result.near_equal.size else np.nan
    if not np.isnan(share):
        yield Claim(
            text=sentence(
                f"{share:.0%} of the directions have a near-equal neighbour, and are defined only together with it"
            ),
            stated=True,
            caveat=f"singular values within a ratio of {read_json(result, 'near')}; mean over kinds and layers; "
            "their tokens are listed by subspace too",
            select={"variable": "near_equal"},
        )


def _frequency(result: xr.Dataset) -> Iterator[Claim]:
    most = strongest(result, "follows_frequency", "kind", by=np.abs)
    if most.known:
        yield most.claim(
            f"Rank correlation of coherence with token frequency is strongest in {kind_in_words(most.select['kind'])}: "
            f"{most.estimate}",
            caveat="over directions; a rater that follows frequency rates frequency",
            signed=True,
        )


def _removals(result: xr.Dataset) -> Iterator[Claim]:
    if "edit_selectivity" not in result:
        return
    with_ratios = result if "edit_ratio" in result else result.assign(ratios(result))  # written since
    for name in result.edit.values:
        # Where all texts say the same there is no p, and the interval decides.
        p = "edit_p" if np.isfinite(float(result.edit_p.sel(edit=name))) else "no p"
        one = finding(with_ratios, "edit_ratio", p=p, null=1.0, units="texts", n=_TEXTS, edit=name)
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
            caveat=f"{counted(one.n, 'texts')}; {turned} times as much as removing a rotation of it; chosen as the "
            "most coherent, no correction for the choice",
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
        signed=True,
    )
