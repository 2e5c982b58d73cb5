"""What a page says first of a model: by rule, five to eight sentences, each with what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from layerscope import experiments
from layerscope.atlas.layers import Layers
from layerscope.atlas.measures import GROUPS
from layerscope.atlas.roles import ROLES
from layerscope.contract import Claim
from layerscope.evidence import places_in_words
from layerscope.evidence.wording import counted, measured, sentence

MOST = 8


@dataclass(frozen=True)
class FirstSentence:
    """One sentence, and where its evidence lies.

    Attributes:
        about: what it speaks of: phases, layers, heads, or a group of questions.
        text: the sentence.
        experiment: whose claim it is; empty where all measures together say it.
        claim: the claim, where it is one.
    """

    about: str
    text: str
    experiment: str = ""
    claim: Claim | None = None


def first_sentences(layers: Layers, claims: Mapping[str, Sequence[Claim]]) -> list[FirstSentence]:
    """Phases, layers that stand out, heads with a role; then one headline claim for each group of questions.

    Of a group, the first claim on a headline index counts that is no null, experiments in the order of their `PLACE`;
    without one the first claim on a headline index, whatever it says. Where there are more than MOST sentences, groups
    that have a null only are left out, then others, the last first.

    Args:
        layers: the atlas of the model.
        claims: of its experiments, by name, as its twins left them.
    """
    own = [*_of_the_atlas(layers)]
    headlines = [*_of_groups(layers, claims)]
    while len(own) + len(headlines) > MOST:
        nulls = [one for one in headlines if one.claim is not None and one.claim.significant is False]
        headlines.remove((nulls or headlines)[-1])
    return own + headlines


def _of_the_atlas(layers: Layers) -> Iterator[FirstSentence]:
    yield FirstSentence("Phases", layers.phases.said())
    yield FirstSentence("Layers", standing_out_in_words(layers))
    if heads := _heads_in_words(layers):
        yield FirstSentence("Heads", heads)


def standing_out_in_words(layers: Layers) -> str:
    """Which layers stand out, in how many measures of those that could be tested."""
    tested = int(np.isfinite(layers.data.p_adjusted.values).any(axis=1).sum())
    measures = counted((tested,), "measures")
    if not tested:
        return sentence("no measure could be tested for layers that stand out")
    counts = layers.data.stands_out.values.sum(axis=0)
    if not counts.any():
        return sentence(f"no layer stands out in any of {measures}")
    by_count = sorted(np.flatnonzero(counts), key=lambda layer: -counts[layer])
    (most, alike), *rest = (
        (count, sorted(int(layer) for layer in same))
        for count, same in groupby(by_count, key=lambda layer: int(counts[layer]))
    )
    verb = "stands out" if len(alike) == 1 else "stand out"
    first = f"{places_in_words(alike, 'layer')} {verb} in {most} of {measures}"
    return sentence(
        ", ".join([first, *(f"{places_in_words(same, 'layer')} in {count}" for count, same in rest)])
    )


def _heads_in_words(layers: Layers) -> str:
    """How many heads have each role, and the strongest of each."""
    said = []
    for role in ROLES:
        heads = [one for one in layers.roles if one.role == role]
        if heads:
            first = heads[0]
            where = places_in_words(sorted({one.layer for one in heads}), "layer")
            share = measured(first.value, "share", first.low, first.high)
            said.append(
                f"{counted((len(heads),), f'{role.name}s')} in {where} (strongest {first.name}, {share})"
            )
    return sentence("; ".join(said)) if said else ""


def _of_groups(layers: Layers, claims: Mapping[str, Sequence[Claim]]) -> Iterator[FirstSentence]:
    groups = {part.experiment: part.group for part in layers.parts}
    for group in GROUPS:
        here = [name for name in in_order(claims) if groups.get(name) == group]
        about = [(name, claim) for name in here for claim in headline_claims(name, claims[name])]
        found = [(name, claim) for name, claim in about if claim.significant is not False]
        for name, claim in (found or about)[:1]:
            yield FirstSentence(group.capitalize(), claim.text, name, claim)


def in_order(names: Mapping[str, object] | Sequence[str]) -> list[str]:
    """Experiments by their `PLACE`, then by name."""
    return sorted(names, key=lambda name: (experiments.load(name).place, name))


def headline_claims(name: str, claims: Sequence[Claim]) -> list[Claim]:
    """Claims on an experiment's headline indices."""
    headlines = experiments.load(name).headlines
    return [claim for claim in claims if claim.select.get("variable") in headlines]
