"""What people say of the contexts: a sheet to fill in, and what the answers add up to.

The procedure of Geva et al. 2021: an annotator reads a key's contexts, names the patterns that come back
(in three contexts or more), says of each context which pattern it shows, and whether that pattern is
shallow (its words: the same last word, the same phrase), semantic (its subject or sense), or both.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Claim, Judged
from layerscope.evidence import Finding, text_coordinate
from layerscope.maths.bootstrap import FEWEST_UNITS, Interval, bootstrap_mean
from layerscope.maths.rater_agreement import alpha_interval, krippendorff_alpha
from layerscope.plots.curves import curve_over_depth
from layerscope.results.annotation_sheets import Judgements, Sheet
from layerscope.results.escaping import visible

KINDS = ("shallow", "semantic", "both", "none")
_SHOWN = ("group", "context", "ends in", "followed by")
_OFTEN = 3
"""A pattern counts from so many contexts on, as in Geva et al. 2021."""


def sheet(result: xr.Dataset) -> Sheet:
    """One row for each context: keys in random order, no layer, no number of the key."""
    keys = [str(key) for key in result.key.values]
    order = np.random.default_rng(11).permutation(len(keys))
    names = row_names(result)
    rows = {}
    for group, place in enumerate(order, start=1):
        for context in np.flatnonzero(result.context_key.values == keys[place]):
            rows[names[context]] = (f"group {group}", *_cells(result, int(context)))
    return Sheet(shown=_SHOWN, rows=rows, questions={"pattern": (), "kind": KINDS})


def row_names(result: xr.Dataset) -> list[str]:
    """A name for each context that tells nothing, and that no other run's sheet shares."""
    run = f"{result.attrs.get('model', '')} {result.attrs.get('settings', '')}"
    about = zip(
        result.context.values, result.context_passage.values, result.context_position.values, strict=True
    )
    return [
        hashlib.sha256(f"{run}\x1f{name}\x1f{passage}\x1f{position}".encode()).hexdigest()[:10]
        for name, passage, position in about
    ]


def _cells(result: xr.Dataset, context: int) -> tuple[str, str, str]:
    texts = json.loads(str(result.context_text.values[context]))
    length = int(result.context_length.values[context])
    before, last, after = texts[: length - 1], texts[length - 1], texts[length:]
    return (
        f"… {visible(''.join(before), blanks=False)}[{visible(last)}]",
        f"[{visible(last)}]",
        f"… {visible(''.join(after), blanks=False)}",
    )


def judged(result: xr.Dataset, judgements: Judgements) -> Judged:
    """Patterns, their kinds by layer, notes on keys, and agreement between annotators."""
    names = row_names(result)
    answers = {
        annotator: {context: given[name] for context, name in enumerate(names) if name in given}
        for annotator, given in judgements.answers.items()
        if given
    }
    if not answers:
        return Judged()
    claims = [_claim_of(result, annotator, given) for annotator, given in answers.items()]
    claims += _claim_of_agreement(result, answers)
    figures = {"What did annotators find?": _figure(result, answers)}
    return Judged(claims=claims, figures=figures, notes=_notes(result, answers))


_Given = Mapping[int, Mapping[str, str]]


def _patterns(result: xr.Dataset, given: _Given) -> dict[str, Counter[str]]:
    """For each key that an annotator judged, its patterns and how many contexts show each."""
    found: dict[str, Counter[str]] = {}
    for context, answer in given.items():
        patterns = found.setdefault(str(result.context_key.values[context]), Counter())
        if answer.get("pattern") and answer.get("kind") != "none":
            patterns[answer["pattern"].strip().lower()] += 1
    return {
        key: Counter({pattern: count for pattern, count in patterns.items() if count >= _OFTEN})
        for key, patterns in found.items()
    }


def _claim_of(result: xr.Dataset, annotator: str, given: _Given) -> Claim:
    patterns = _patterns(result, given)
    judged_contexts = Counter(str(result.context_key.values[context]) for context in given)
    covered = np.array([sum(found.values()) / judged_contexts[key] for key, found in patterns.items()])
    interval = bootstrap_mean(covered, seed=0)
    numbers = [len(found) for found in patterns.values()]
    share = _over_keys(float(covered.mean()), interval, len(patterns), "share")
    return share.claim(
        f"Annotator {annotator} found {np.mean(numbers):.1f} patterns per key, which cover {share.estimate} "
        "of its contexts",
        caveat=f"{len(patterns)} keys, {len(given)} contexts judged; a pattern counts from {_OFTEN} contexts on; "
        f"{sum(number > 0 for number in numbers)} keys have one (Geva et al. 2021: every key, 3.6 on average)",
    )


def _over_keys(value: float, interval: Interval, keys: int, unit: str) -> Finding:
    """A number with its interval over keys, which few keys have not: resamples of two or three say nothing."""
    low, high = (np.nan, np.nan) if keys < FEWEST_UNITS else (float(interval.low), float(interval.high))
    return Finding(value, low, high, unit, n=(keys,), units="keys")


def _claim_of_agreement(result: xr.Dataset, answers: Mapping[str, _Given]) -> list[Claim]:
    units: dict[int, list[str]] = {}
    for given in answers.values():
        for context, answer in given.items():
            if answer.get("kind"):
                units.setdefault(context, []).append(answer["kind"])
    twice = {context: kinds for context, kinds in units.items() if len(kinds) > 1}
    if not twice:
        return []
    kinds, groups = list(twice.values()), [str(result.context_key.values[context]) for context in twice]
    interval = alpha_interval(kinds, groups, seed=0, level=0.95, resamples=1000)
    alpha = _over_keys(krippendorff_alpha(kinds), interval, len(set(groups)), "1")
    return [
        alpha.claim(
            f"Annotators agree {alpha.which('more', 'less')} than by chance on the kind of pattern that a context "
            f"shows: Krippendorff's alpha {alpha.estimate}",
            nothing="agreement of annotators beyond chance (Krippendorff's alpha) on the kind of pattern that a "
            "context shows",
            unknown="everybody always gave the same answer",
            untrained=("not applicable", "people judged the contexts of these keys"),
            caveat=f"{len(twice)} contexts judged by two or more of {len(answers)} annotators, interval over keys; 0 "
            "is chance, 0.8 is usually asked for",
            signed=True,
        )
    ]


def _figure(result: xr.Dataset, answers: Mapping[str, _Given]) -> Any:
    """Share of judged contexts of each kind, by layer, all annotators together."""
    layer_of = dict(zip(result.key.values.tolist(), result.key_layer.values.tolist(), strict=True))
    counts = np.zeros((len(KINDS), result.sizes["layer"]))
    for given in answers.values():
        for context, answer in given.items():
            if answer.get("kind"):
                counts[KINDS.index(answer["kind"]), layer_of[str(result.context_key.values[context])]] += 1
    total = counts.sum(axis=0)
    shares = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    lines = xr.Dataset(
        {"value": (("row", "layer"), shares, {"long_name": "share of judged contexts", "units": "1"})},
        coords={"layer": result.layer, "row": text_coordinate(list(KINDS), "row", "kind of pattern")},
    )
    return curve_over_depth(lines, caption=f"{int(total.sum())} judgements of {len(answers)} annotators.")


def _notes(result: xr.Dataset, answers: Mapping[str, _Given]) -> dict[str, str]:
    """What each annotator named on a key, for the page for reading."""
    notes: dict[str, list[str]] = {}
    for annotator, given in answers.items():
        kinds: dict[str, Counter[str]] = {}
        for context, answer in given.items():
            if answer.get("kind"):
                kinds.setdefault(str(result.context_key.values[context]), Counter())[answer["kind"]] += 1
        for key, patterns in _patterns(result, given).items():
            named = ", ".join(f"“{pattern}” ({count})" for pattern, count in patterns.most_common())
            said = ", ".join(f"{kind} {count}" for kind, count in kinds.get(key, Counter()).most_common())
            notes.setdefault(key, []).append(
                f"{annotator}: {named or 'no pattern'}" + (f"; {said}" if said else "")
            )
    return {key: ". ".join(said) for key, said in notes.items()}
