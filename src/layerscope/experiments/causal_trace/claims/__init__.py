"""A causal trace in sentences, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Claim
from layerscope.evidence import Finding, claims_of_pairs, finding, largest_first, strongest
from layerscope.experiments.causal_trace.claims import components, screen
from layerscope.experiments.causal_trace.claims.components import UNKNOWING
from layerscope.experiments.causal_trace.conclude.metrics import metric_of
from layerscope.results.escaping import restored


def claims(result: xr.Dataset) -> Iterator[Claim]:
    """Crossovers by category, pairs of categories, other routes; then whatever else was measured."""
    yield from _crossovers(result)
    yield from _contrasts(result)
    if np.isfinite(result.mean_routed_elsewhere):
        yield _routed_elsewhere(result)
    if "total_effect" in result and np.isfinite(result.total_effect):
        yield _total(result)
    for name, sentences in (
        ("depth_p", _depths),
        ("paired_difference", _matched),
        ("regression", _regression),
        ("output_recovery", components.outputs),
        ("severed_loss", components.severed),
        ("head_p", components.heads),
        ("agreement", components.agreement),
        ("mean_handover", components.handover),
        ("dose_transition", components.doses),
        ("screen_missed", screen.claims),
    ):
        if name in result:
            yield from sentences(result)


def _crossovers(result: xr.Dataset) -> Iterator[Claim]:
    empty = []
    for name in largest_first(result.mean_transition):
        depth = finding(result, "mean_transition", unit="1", units="prompts", category=name)
        if not depth.known:
            empty.append(restored(name))
            continue
        yield depth.claim(
            f"crossover comes at depth {depth.estimate} of {result.sizes['depth'] - 1} for {restored(name)}",
            caveat=f"mean over {depth.n[0]} prompts",
            untrained=UNKNOWING,
        )
    if empty:
        more = f" and {len(empty) - 3} more categories" if len(empty) > 3 else ""
        yield Finding(float("nan"), select={"variable": "mean_transition_n"}).claim(
            "",
            nothing=f"crossover depth of {', '.join(empty[:3])}{more}",
            unknown="no prompt crosses over after exclusions",
            untrained=UNKNOWING,
        )


def _contrasts(result: xr.Dataset) -> Iterator[Claim]:
    yield from claims_of_pairs(
        result,
        says=lambda gap, first, second: (
            f"crossover comes {gap.size} later for {gap.which(first, second)} than for {gap.which(second, first)}"
        ),
        nothing="difference in crossover depth",
        caveat="prompts are not matched unless the set says so",
        untrained=UNKNOWING,
    )


def _routed_elsewhere(result: xr.Dataset) -> Claim:
    share = finding(result, "mean_routed_elsewhere", unit="share")
    return share.claim(
        f"{share.estimate} of the recovery lies at tokens that are neither corrupted nor last",
        caveat="positive recoveries only, so chance alone makes it larger than zero",
        untrained=UNKNOWING,
    )


def _total(result: xr.Dataset) -> Claim:
    metric, unit = metric_of(result)
    fall = finding(result, "total_effect", unit=unit, units="prompts")
    return fall.claim(
        f"corruption {fall.which('lowers', 'raises')} {metric} by {fall.size} on average",
        caveat=f"over {fall.n[0]} prompts (average total effect)" if fall.n else "",
        untrained=UNKNOWING,
    )


def _depths(result: xr.Dataset) -> Iterator[Claim]:
    for pair in map(str, result.category_pair.values):
        most = strongest(
            result,
            "depth_difference",
            over="depth",
            by=np.abs,
            p="depth_p",
            unit="point",
            units="prompts",
            category_pair=pair,
        )
        first, _, second = restored(pair).partition(" − ")
        yield most.claim(
            f"recovery at the last token is {most.size} {most.which('higher', 'lower')} for {first} than for {second} "
            f"at depth {most.select['depth']}",
            nothing=f"difference between {first} and {second} in recovery at the last token, at any depth",
            caveat=f"significant at {most.where}" if most.clear > 1 else "",
            untrained=UNKNOWING,
        )


def _matched(result: xr.Dataset) -> Iterator[Claim]:
    for name in map(str, result.matched.values):
        gap = finding(result, "paired_difference", p="paired_p", units="pairs", matched=name)
        first, _, second = restored(name).partition(" − ")
        yield gap.claim(
            f"within matched pairs, crossover comes {gap.size} {gap.which('later', 'earlier')} for {first} than for "
            f"{second}",
            nothing=f"difference in crossover depth between {first} and {second} within matched pairs",
            unknown="no pair crosses over on both sides",
            caveat=f"{gap.n[0]} pairs" if gap.n else "",
            untrained=UNKNOWING,
        )


def _regression(result: xr.Dataset) -> Iterator[Claim]:
    n, terms = int(result.regression_n), int(result.sizes["explanation"])
    if not np.isfinite(result.regression).any():
        yield Finding(float("nan"), select={"variable": "regression_n"}).claim(
            "",
            nothing=f"effects of {terms} term{'s' * (terms > 1)} on crossover depth, the others held fixed",
            unknown=f"{n} prompts; at least ten a term are needed, and terms that vary",
            untrained=UNKNOWING,
        )
        return
    for name in map(str, result.explanation.values):
        slope = finding(result, "regression", p="regression_p_adjusted", units="prompts", explanation=name)
        if slope.known:
            yield slope.claim(
                f"with the others held fixed, crossover comes {slope.size} {slope.which('later', 'earlier')} "
                f"{_per(restored(name))}",
                nothing=f"effect of {restored(name)} on crossover depth, the others held fixed",
                caveat=f"{n} prompts",
                untrained=UNKNOWING,
            )


def _per(term: str) -> str:
    """A term of the regression in a sentence: a category against another, or a unit of a number."""
    name, against, base = term.partition(" (against ")
    if against:
        return f"for {name} than for {base.removesuffix(')')}"
    if term.startswith("distance"):
        return "for every further token between subject and end"
    return "for every nat of the answer's clean log-odds"
