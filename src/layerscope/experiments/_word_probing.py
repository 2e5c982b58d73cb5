"""Stages of word_position_probe that train probes: what is read, fitted and asked, in items of at most a minute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.experiments._contract import Earlier, Inputs, WorkItem
from layerscope.experiments._depth_chunks import depth_chunks
from layerscope.experiments._reading_ahead import GroupItem, Weights, group_items, model_of, read_group
from layerscope.experiments._word_fitting import (
    IndexProbe,
    case_states,
    decoded,
    fitted,
    probe_variables,
    probes_of,
)
from layerscope.experiments._word_prompts import prompts_of, texts_of
from layerscope.experiments._word_tasks import ANY_DEPTH, TASKS, bags, cases_of, guesses, seeded
from layerscope.results.combine import concatenate
from layerscope.results.schema import read_json

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

_ITEM_BYTES = 2**26
"""Of the states of depths that are fitted together: a fit of so many takes some seconds on one core."""


class DepthsItem(WorkItem):
    """Tasks whose probes are trained on the same states, at depths that are fitted together."""

    tasks: tuple[str, ...]
    depths: tuple[int, ...]
    tokens_per_pass: int


def groups(inputs: Inputs, settings: Any, earlier: Earlier) -> Iterator[GroupItem]:
    """Everything that probes will read. What they read first is read last: if a cache is too small, that is left."""
    design = earlier["design"]
    arms = [arm for arm in ("names", "sentences") if arm not in read_json(design, "left_out", {})]
    asked: list[tuple[str, Weights]] = [(arm, "trained") for arm in arms]
    asked += [("anchored", "untrained")] * settings.untrained
    for arm, weights in [*asked, ("unanchored", "trained"), ("anchored", "trained")]:
        for side in ("test", "training"):
            kind = f"{arm} prompts for {side}"
            yield from group_items(_texts(design, kind), weights, kind, inputs.tokens_per_pass)


def read(model: LayeredModel, item: GroupItem, settings: Any, earlier: Earlier) -> xr.Dataset:
    """One group of prompts into the cache."""
    which = model_of(model, item.weights, settings.seed)
    return read_group(which, item, _texts(earlier["design"], item.kind))


def _texts(design: xr.Dataset, kind: str) -> list[tuple[int, ...]]:
    arm, _, _, side = kind.split()
    return texts_of(design, arm, test=side == "test")


def _depths_items(
    name: str, tasks: tuple[str, ...], inputs: Inputs, settings: Any, design: xr.Dataset
) -> Iterator[DepthsItem]:
    """All depths, as many at a time as an item of a minute allows."""
    train = prompts_of(design, TASKS[tasks[0]].train, test=False)
    places = {TASKS[task].place for task in tasks}
    cases = len(train) * len(train[0].last) * len(places)
    for depths in depth_chunks(inputs.facts.n_layers + 1, cases, inputs.facts.width, most_bytes=_ITEM_BYTES):
        yield DepthsItem(
            name=f"{name}, depth{'s' * (len(depths) > 1)} {depths[0]}"
            + f" to {depths[-1]}" * (len(depths) > 1),
            size=float(cases * len(depths)),
            tasks=tasks,
            depths=tuple(depths),
            tokens_per_pass=inputs.tokens_per_pass,
        )


def main_items(inputs: Inputs, settings: Any, earlier: Earlier) -> Iterator[DepthsItem]:
    """The probe of words' last pieces, all depths."""
    yield from _depths_items("words", ("last",), inputs, settings, earlier["design"])


def main_probe(model: LayeredModel, item: DepthsItem, settings: Any, earlier: Earlier) -> xr.Dataset:
    """The probe of words' last pieces at some depths."""
    train = prompts_of(earlier["design"], "anchored", test=False)
    cases = cases_of(train, "last")
    states = case_states(model, train, item.depths, {"last": cases}, item.tokens_per_pass)["last"]
    return probe_variables(fitted(states, cases.labels, settings, model.device), item.depths)


def score_items(inputs: Inputs, settings: Any, earlier: Earlier) -> Iterator[DepthsItem]:
    """Every task at all depths; counts of types once."""
    design = earlier["design"]
    left_out = read_json(design, "left_out", {})
    groups: list[tuple[str, ...]] = [("last", "first", "shuffled", "onto unanchored")]
    groups += [("unanchored", "onto anchored")]
    groups += [("untrained",)] * settings.untrained
    groups += [(arm,) for arm in ("sentences", "names") if arm not in left_out]
    cases = float(settings.train_prompts * settings.prompt_words)
    yield DepthsItem(name="types", size=cases, tasks=("types",), depths=(), tokens_per_pass=1)
    for group in groups:
        yield from _depths_items(TASKS[group[0]].says, group, inputs, settings, design)


def scores(model: LayeredModel, item: DepthsItem, settings: Any, earlier: Earlier) -> xr.Dataset:
    """What probes of some depths guess of the test cases of some tasks."""
    design = earlier["design"]
    units = design.sizes["unit"]
    if item.tasks == ("types",):
        return guesses("types", ANY_DEPTH, _types(design, settings)[:, None], units)
    asked = model_of(model, "untrained" if TASKS[item.tasks[0]].twin else "trained", settings.seed)
    probes = _probes_of_places(asked, item, settings, earlier)
    parts = []
    for arm in dict.fromkeys(TASKS[task].test for task in item.tasks):
        test = prompts_of(design, arm, test=True)
        names = [name for name in item.tasks if TASKS[name].test == arm]
        cases = {TASKS[name].place: cases_of(test, TASKS[name].place) for name in names}
        states = case_states(asked, test, item.depths, cases, item.tokens_per_pass)
        for name in names:
            place = TASKS[name].place
            told = decoded(states[place], probes[place], item.depths)
            parts.append(guesses(name, item.depths, told, units))
    return concatenate(parts)


def _probes_of_places(
    model: LayeredModel, item: DepthsItem, settings: Any, earlier: Earlier
) -> dict[str, Mapping[int, IndexProbe]]:
    """By depth, probes for the places that the tasks read; the main ones are there already."""
    found: dict[str, Mapping[int, IndexProbe]] = {}
    if "last" in item.tasks:
        found["last"] = probes_of(earlier["probe"])
    train = prompts_of(earlier["design"], TASKS[item.tasks[0]].train, test=False)
    places = dict.fromkeys(TASKS[task].place for task in item.tasks)
    cases = {place: cases_of(train, place) for place in places if place not in found}
    states = case_states(model, train, item.depths, cases, item.tokens_per_pass)
    for place, those in cases.items():
        probes = fitted(states[place], those.labels, settings, model.device)
        found[place] = dict(zip(item.depths, probes, strict=True))
    return found


def _types(design: xr.Dataset, settings: Any) -> np.ndarray:
    """[case index]: what a linear probe makes of counts of token types, without any model or depth."""
    train, test = (prompts_of(design, "anchored", test=held) for held in (False, True))
    here, there = cases_of(train, "last"), cases_of(test, "last")
    counts, counts_there = bags(train, test, here, there, seeded(settings, "hidden types"))
    return fitted(counts[None], here.labels, settings)[0].probabilities(counts_there)
