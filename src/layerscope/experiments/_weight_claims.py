"""What directions of weights say, in sentences with the numbers that they rest on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence.findings import number_or_none
from layerscope.experiments._weight_pairs import LIKENESS
from layerscope.results.schema import read_json
from layerscope.results.words import restored


def claims(result: xr.Dataset) -> list[Claim]:
    """Rates by kind, what exceeds rotations, depth, the last block, subspaces, frequency, removals, words."""
    rater = str(read_json(result, "rate_by"))
    found = [*_power(result, rater)]
    if may_rate(result):
        found += [*_rates(result, rater), *_above_frequency(result, rater), *_depth(result, rater)]
        found += [*_last_block(result, rater), *_sinks(result, rater), *_frequency(result)]
    found += [*_pairs(result), *_subspaces(result), *_removals(result), *_words(result)]
    return found or [
        Claim(
            text="no direction of this model could be rated",
            caveat="see the cautions for what was left out",
            select={"variable": "rate"},
        )
    ]


def may_rate(result: xr.Dataset) -> bool:
    """Whether rates may be told: the rater was chosen by the user, or sees known sets. Old results were not asked."""
    return bool(read_json(result, "rater_may_rate", True))


def _power(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    """What the rater detects of directions that are made of known sets, beside what it makes of unrelated tokens."""
    if "detected_all" not in result or rater not in result.rater.values:
        return
    here = result.sel(rater=rater)
    if not bool(here.detected_all.notnull().any()):
        yield Claim(
            text="Whether a rater detects known token sets cannot be tested: too few of them are single tokens of this "
            "vocabulary" + ("" if may_rate(result) else ", so no rate of coherent directions is reported"),
            caveat=f"{_most(here.detected_all_n)} known sets, at least 5 asked",
            select={"variable": "detected_all", "rater": rater},
        )
        return
    for side in result.side.values:
        one = here.sel(side=side)
        alarms = float(one.false_alarms_all)
        yield Claim(
            text=f"Rater ({rater}): {float(one.detected_all):.0%} of directions made of known token sets are detected "
            f"where directions are {'read' if side == 'reads' else 'written'}, and {alarms:.0%} of directions made of "
            "unrelated tokens",
            value=float(one.detected_all),
            low=number_or_none(one.detected_all_low),
            high=number_or_none(one.detected_all_high),
            caveat=f"mean over {int(one.detected_all_n)} sets, directions made of 4, 8 or 12 of their tokens"
            + (
                ""
                if may_rate(result)
                else "; too few for a rate of coherent directions, which is not reported"
            ),
            select={"variable": "detected_all", "side": side, "rater": rater},
        )


def _most(numbers: xr.DataArray) -> int:
    return int(numbers.fillna(0).max())


def _rates(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    for kind in result.kind.values:
        here = result.sel(kind=kind, rater=rater)
        if int(here.whole_rate_n) == 0:
            continue
        above, p = float(here.above_rotations), float(here.above_rotations_p)
        rotated, twin = float(here.whole_rotated_rate), float(here.untrained_rate)
        controls = f"random directions {float(here.random_rate):.0%}"
        controls += "" if np.isnan(rotated) else f", rotations in the same space {rotated:.0%}"
        matched = float(here.matched_rate)
        controls += "" if np.isnan(matched) else f", other tokens as frequent {matched:.0%}"
        controls += "" if np.isnan(twin) else f", untrained twin {twin:.0%}"
        yield Claim(
            text=f"{kind}: {float(here.whole_rate):.0%} of "
            f"{int(here.whole_rate_n)} directions hang together ({controls})",
            value=float(here.whole_rate),
            low=number_or_none(here.whole_rate_low),
            high=number_or_none(here.whole_rate_high),
            caveat=f"rater: {rater}{_others(result, kind, rater)}; directions of a matrix are taken as independent",
            select={"variable": "whole_rate", "kind": kind, "rater": rater},
        )
        if not np.isnan(p):
            verdict = "more often than" if above > 0 else "less often than"
            yield Claim(
                text=f"{kind}: singular directions hang together {verdict} rotations of them, by {abs(above):.0%}"
                if p < 0.05
                else f"{kind}: singular directions are not distinguishable from rotations of them",
                value=above,
                low=number_or_none(here.above_rotations_low),
                high=number_or_none(here.above_rotations_high),
                p_adjusted=p,
                significant=p < 0.05,
                caveat=f"difference by matrix, mean over {int(here.above_rotations_n)} "
                f"matrices; p of the pooled rates, "
                "Holm over kinds; where rotations do as well, the space is meaningful and not the basis",
                select={"variable": "above_rotations", "kind": kind, "rater": rater},
            )


def _above_frequency(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    for kind in result.kind.values:
        here = result.sel(kind=kind, rater=rater)
        above, p = float(here.above_matched), float(here.above_matched_p)
        if not np.isnan(p):
            yield Claim(
                text=f"{kind}: tokens of a direction hang together "
                f"{'more' if above > 0 else 'less'} often than others as "
                f"frequent, by {abs(above):.0%}"
                if p < 0.05
                else f"{kind}: tokens of a direction are not distinguishable from others as frequent",
                value=above,
                low=number_or_none(here.above_matched_low),
                high=number_or_none(here.above_matched_high),
                p_adjusted=p,
                significant=p < 0.05,
                caveat="difference by matrix; p of the pooled rates, Holm over kinds",
                select={"variable": "above_matched", "kind": kind, "rater": rater},
            )


def _others(result: xr.Dataset, kind: str, rater: str) -> str:
    """What the other raters find, in short."""
    texts = []
    for other in result.rater.values:
        here = result.sel(kind=kind, rater=other)
        if other != rater and int(here.whole_rate_n):
            texts.append(f"{other} finds {float(here.whole_rate):.0%} (random {float(here.random_rate):.0%})")
    return f"; {', '.join(texts)}" if texts else ""


def _depth(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    """A line over depth, and what it leaves, where they are told; and one sentence on all other kinds."""
    here = result.sel(rater=rater)
    known = here.isel(kind=np.flatnonzero(here.slope_p.notnull().values))
    plain = []
    for kind in known.kind.values:
        one = known.sel(kind=kind)
        found = [*_trend(one, str(kind), rater), *_structure(one, str(kind), rater)]
        yield from found
        plain += [] if found else [str(kind)]
    if plain:
        others = "" if len(plain) == known.sizes["kind"] else f": {', '.join(plain)}"
        yield Claim(
            text="no kind's rate distinguishably rises, falls or bends over depth"
            if not others
            else f"in the other kinds no trend and no bend over depth is distinguishable{others}",
            significant=False,
            caveat=f"smallest p {_smallest(known.sel(kind=plain).slope_p)} for a line, "
            f"{_smallest(known.sel(kind=plain).structure_p)} for what it leaves; by Holm over kinds, directions "
            "taken as independent",
            select={"variable": "slope_p", "rater": rater},
        )


def _smallest(p: xr.DataArray) -> str:
    known = p.values[np.isfinite(p.values)]
    return f"{known.min():.2g}" if known.size else "unknown"


def _trend(one: xr.Dataset, kind: str, rater: str) -> Iterator[Claim]:
    slope, p = float(one.slope), float(one.slope_p)
    if p < 0.05:
        yield Claim(
            text=f"{kind}: the rate {'rises' if slope > 0 else 'falls'} by {abs(slope):.0%} from the first block "
            "to the last",
            value=slope,
            low=number_or_none(one.slope_low),
            high=number_or_none(one.slope_high),
            p_adjusted=p,
            significant=True,
            caveat="a weighted straight line; Holm over kinds, directions taken as independent",
            select={"variable": "slope", "kind": kind, "rater": rater},
        )


def _structure(one: xr.Dataset, kind: str, rater: str) -> Iterator[Claim]:
    left = float(one.structure_p)
    if left < 0.05:
        yield Claim(
            text=f"{kind}: the rate bends over depth, more than a straight line allows",
            value=float(one.structure),
            p_adjusted=left,
            significant=True,
            caveat=f"value: χ² on {int(one.structure_freedom)} degrees of freedom beyond the line; Holm over kinds, "
            "directions taken as independent",
            select={"variable": "structure", "kind": kind, "rater": rater},
        )


def _last_block(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    clear = []
    for kind in result.kind.values:
        here = result.sel(kind=kind, rater=rater)
        p, difference = float(here.last_block_p), float(here.last_block)
        if p < 0.05:
            clear.append(kind)
            yield Claim(
                text=f"{kind}: the last block is {'more' if difference > 0 else 'less'} "
                f"often interpretable than the others, "
                f"by {abs(difference):.0%}",
                value=difference,
                low=number_or_none(here.last_block_low),
                high=number_or_none(here.last_block_high),
                p_adjusted=p,
                significant=True,
                caveat="two proportions, Holm over kinds",
                select={"variable": "last_block", "kind": kind, "rater": rater},
            )
    known = [
        kind
        for kind in result.kind.values
        if not np.isnan(float(result.last_block_p.sel(kind=kind, rater=rater)))
    ]
    if known and not clear:
        yield Claim(
            text="the last block is not distinguishable from the others, in any kind",
            significant=False,
            caveat="two proportions, Holm over kinds",
            select={"variable": "last_block_p", "rater": rater},
        )


def _sinks(result: xr.Dataset, rater: str) -> Iterator[Claim]:
    """Where rates go with attention to the first token, or that none does."""
    if "with_sink" not in result:
        return
    here = result.sel(rater=rater)
    known = here.isel(kind=np.flatnonzero(here.with_sink_p.notnull().values))
    clear = known.isel(kind=np.flatnonzero((known.with_sink_p < 0.05).values))
    for kind in clear.kind.values:
        one = clear.sel(kind=kind)
        yield Claim(
            text=f"{kind}: layers whose directions mean something give the first token "
            f"{'more' if float(one.with_sink) > 0 else 'less'} attention, rank correlation "
            f"{_signed(float(one.with_sink))}",
            value=float(one.with_sink),
            p_adjusted=float(one.with_sink_p),
            significant=True,
            caveat="over layers; p by orders of stretches of layers, Holm over kinds",
            select={"variable": "with_sink", "kind": kind, "rater": rater},
        )
    if known.sizes["kind"] and not clear.sizes["kind"]:
        yield Claim(
            text="rates of interpretable directions do not distinguishably go with attention to the first token",
            significant=False,
            caveat=f"rank correlations over layers from {_signed(float(known.with_sink.min()))} to "
            f"{_signed(float(known.with_sink.max()))}; p by orders of stretches of layers, Holm over kinds",
            select={"variable": "with_sink", "rater": rater},
        )


def _pairs(result: xr.Dataset) -> Iterator[Claim]:
    """Whether queries and keys join tokens of one word or one part of speech."""
    for name, what in LIKENESS.items():
        value = float(result[f"all_pairs_{name}"]) if f"all_pairs_{name}" in result else np.nan
        if np.isnan(value):
            continue
        low, high = (number_or_none(result[f"all_pairs_{name}_{end}"]) for end in ("low", "high"))
        told = low is not None and high is not None and not low <= 0 <= high
        chance, share = (float(result[f"pair_{name}{end}"].mean()) for end in ("", "_here"))
        yield Claim(
            text=f"the tokens that queries and keys join most are of {what} in {share:.1%} of pairs, any two of the "
            f"tokens compared in {chance:.1%}"
            if told
            else f"tokens that queries and keys join are of {what} no more often than any two of them",
            value=value,
            low=low,
            high=high,
            significant=told,
            caveat=f"mean over {int(result[f'all_pairs_{name}_n'])} heads; pairs are looked for among the tokens at "
            "the ends of what each head asks and answers",
            select={"variable": f"all_pairs_{name}"},
        )


def _subspaces(result: xr.Dataset) -> Iterator[Claim]:
    share = float(result.near_equal.mean()) if result.near_equal.size else np.nan
    if not np.isnan(share):
        yield Claim(
            text=f"{share:.0%} of the directions have a near-equal neighbour, and are defined only together with it",
            caveat=f"singular values within a ratio of {read_json(result, 'near')}; mean over kinds and layers; "
            "their tokens are listed by subspace too",
            select={"variable": "near_equal"},
        )


def _frequency(result: xr.Dataset) -> Iterator[Claim]:
    known = result.follows_frequency.dropna("kind")
    if known.size:
        most = known.isel(kind=int(np.abs(known.values).argmax()))
        yield Claim(
            text=f"coherence beside how often tokens occur: rank correlation {_signed(float(most))} for "
            f"{most.kind.item()}, the farthest from 0 of all kinds",
            value=float(most),
            caveat="over directions; a rater that follows frequency rates frequency",
            select={"variable": "follows_frequency", "kind": most.kind.item()},
        )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _removals(result: xr.Dataset) -> Iterator[Claim]:
    for name in result.edit.values if "edit_selectivity" in result else ():
        here = result.sel(edit=name)
        ratio, low, high = (float(np.exp(here[f"edit_selectivity{end}"])) for end in ("", "_low", "_high"))
        p = float(here.edit_p)
        rotation = float(np.exp(here.edit_over_control))
        yield Claim(
            text=f"without {restored(str(name))}, the logits of its own tokens move {ratio:.2f} times as far as those "
            "of others",
            value=float(here.edit_selectivity),
            low=number_or_none(here.edit_selectivity_low),
            high=number_or_none(here.edit_selectivity_high),
            p_adjusted=number_or_none(p),
            significant=None if np.isnan(p) else p < 0.05,
            caveat=f"ratio {low:.2f} to {high:.2f} over {int(here.edit_selectivity_n)} texts; value and interval are "
            f"its logarithm; {rotation:.2f} times as far as without a rotation of it; chosen as the most coherent, no "
            "correction for the choice",
            select={"variable": "edit_selectivity", "edit": name},
        )


def _words(result: xr.Dataset) -> Iterator[Claim]:
    if "answer" not in result or not result.sizes.get("found"):
        return
    first = result.isel(found=0)
    p = float(first.answer_p)
    near = int((result.answer_p < 0.05).sum())
    matrix = "" if first.found_matrix.item() == "mlp" else f", {first.found_matrix.item()}"
    yield Claim(
        text=f"nearest to {read_json(result, 'search')}: direction {int(first.found_rank)} of layer "
        f"{int(first.found_layer)}, {first.found_kind.item()}{matrix}, cosine {_signed(float(first.answer))}",
        value=float(first.answer),
        p_adjusted=p,
        significant=p < 0.05,
        caveat=f"{near} directions lie nearer than random ones would, by Holm over all directions",
        select={"variable": "answer", "found": int(first.found)},
    )
