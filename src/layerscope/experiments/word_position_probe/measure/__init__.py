"""What each stage of word_position_probe measures, one item at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence.probing import GroupItem, model_of, read_group
from layerscope.experiments.word_position_probe.items import (
    CausesItem,
    DepthsItem,
    DesignItem,
    HeadsItem,
    texts_of_kind,
)
from layerscope.experiments.word_position_probe.items.prompts import as_dataset, prompts_of
from layerscope.experiments.word_position_probe.items.tasks import ANY_DEPTH, TASKS, bags, cases_of, guesses
from layerscope.experiments.word_position_probe.measure import causes
from layerscope.experiments.word_position_probe.measure.fitting import (
    IndexProbe,
    case_states,
    decoded,
    direction_variables,
    directions,
    fitted,
    probe_variables,
    probes_of,
)
from layerscope.experiments.word_position_probe.measure.laying import lay
from layerscope.experiments.word_position_probe.settings import Settings
from layerscope.results.combine import concatenate
from layerscope.results.schema import read_json

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

_CONTROL_DIRECTIONS = 64


def design(model: LayeredModel, item: DesignItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The prompts of every arm, and what is known of them beforehand."""
    prompts, about = lay(model.tokenizer, item.words, item.bos, item.context, settings)
    watched = "pattern" not in model.refused and any(model.attention_modules)
    return as_dataset(prompts).assign_attrs(about | {"attention_seen": int(watched)})


def read(model: LayeredModel, item: GroupItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """One group of prompts into the cache."""
    which = model_of(model, item.weights, settings.seed)
    return read_group(which, item, texts_of_kind(earlier["design"], item.kind))


def main_probe(model: LayeredModel, item: DepthsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The probe of words' last pieces at some depths."""
    train = prompts_of(earlier["design"], "anchored", test=False)
    cases = cases_of(train, "last")
    states = case_states(model, train, item.depths, {"last": cases}, item.tokens_per_pass)["last"]
    return probe_variables(fitted(states, cases.labels, settings, model.device), item.depths)


def scores(model: LayeredModel, item: DepthsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
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
    model: LayeredModel, item: DepthsItem, settings: Settings, earlier: Earlier
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


def _types(design: xr.Dataset, settings: Settings) -> np.ndarray:
    """[case index]: what a linear probe makes of counts of token types, without any model or depth."""
    train, test = (prompts_of(design, "anchored", test=held) for held in (False, True))
    here, there = cases_of(train, "last"), cases_of(test, "last")
    counts, counts_there = bags(train, test, here, there, settings.seeded("hidden types"))
    return fitted(counts[None], here.labels, settings)[0].probabilities(counts_there)


def looks(model: LayeredModel, item: CausesItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """What every head attends to, on training prompts."""
    train = prompts_of(earlier["design"], "anchored", test=False)[: settings.causal_prompts]
    anchors = read_json(earlier["design"], "anchors")
    depth = settings.depth_of(model.n_layers)
    return causes.looks(model, train, anchors, depth, item.tokens_per_pass)


def without_heads(model: LayeredModel, item: HeadsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """What the probes guess of test prompts without some heads."""
    design = earlier["design"]
    return causes.without_heads(
        model,
        item.set_name,
        item.heads,
        prompts_of(design, "anchored", test=True)[: settings.causal_prompts],
        earlier["looks"],
        probes_of(earlier["probe"]),
        item.tokens_per_pass,
        design.sizes["unit"],
    )


def directions_of(model: LayeredModel, item: CausesItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Where states of the next and the previous index lie, at the depth of the causal steps."""
    train = prompts_of(earlier["design"], "anchored", test=False)
    cases, depth = cases_of(train, "last"), settings.depth_of(model.n_layers)
    states = case_states(model, train, [depth], {"last": cases}, item.tokens_per_pass)["last"][0]
    rng = settings.seeded("pairs alike")
    return direction_variables(directions(states, cases, settings.moved_word, rng, _CONTROL_DIRECTIONS))


def moves(model: LayeredModel, item: CausesItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """What follows when a state is moved."""
    return causes.moved(
        model,
        prompts_of(earlier["design"], "anchored", test=True)[: settings.causal_prompts],
        earlier["directions"],
        probes_of(earlier["probe"]),
        settings,
        depth=settings.depth_of(model.n_layers),
        tokens_per_pass=item.tokens_per_pass,
    )
