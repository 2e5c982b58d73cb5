"""The page model by model: what it says first, the layer map, dossiers of layers, experiments by their question."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from layerscope.atlas.first_sentences import FirstSentence, first_sentences
from layerscope.atlas.layers import Layers, layers_of_parts
from layerscope.atlas.measures import GROUPS
from layerscope.errors import LayerscopeError
from layerscope.report.dossiers import Dossier, dossiers
from layerscope.report.layer_map import LayerMap, layer_map
from layerscope.report.sections import Section

_OTHERS = "Other questions"


@dataclass(frozen=True)
class Linked:
    """A sentence and the anchor of its evidence."""

    about: str
    text: str
    anchor: str


@dataclass
class ModelOnPage:
    """One model.

    Attributes:
        name: of the model.
        prefix: of its ids in the page; empty for the first model.
        line: its facts.
        sections: its runs, by group of questions.
        problem: why there is no map, where there could be one.
        map: measures by layers; None where nothing measures layers.
        sentences: what is said first.
        dossiers: layer by layer.
    """

    name: str
    prefix: str
    line: str
    sections: list[tuple[str, list[Section]]]
    problem: str = ""
    map: LayerMap | None = None
    sentences: tuple[Linked, ...] = ()
    dossiers: tuple[Dossier, ...] = ()

    @property
    def runs(self) -> list[Section]:
        """Its sections in the order of the page."""
        return [one for _, group in self.sections for one in group]


def models_of(sections: Sequence[Section], folder: str) -> list[ModelOnPage]:
    """The models of a page, in the order of their first run; what belongs to no model stands with the last.

    Args:
        sections: the runs.
        folder: that holds them, as a reader would name it.
    """
    known = [one.weights for one in sections if one.weights] or [""]
    by_model: dict[str, list[Section]] = {weights: [] for weights in known}
    for one in sections:
        by_model[one.weights or known[-1]].append(one)
    for runs in by_model.values():
        _tell_apart(runs)
    found = []
    for number, runs in enumerate(by_model.values()):
        named = next((one for one in reversed(runs) if one.model), runs[-1])
        model = ModelOnPage(named.model, f"m{number + 1}-" * (number > 0), named.line, _by_group(runs))
        _add_atlas(model, folder)
        found.append(model)
    return found


def _tell_apart(runs: Sequence[Section]) -> None:
    """Several runs of one experiment are told apart by their folders."""
    for one in runs:
        if sum(other.experiment == one.experiment for other in runs) > 1:
            one.told_apart = one.where.rstrip("/").rpartition("/")[2]


def _by_group(sections: Sequence[Section]) -> list[tuple[str, list[Section]]]:
    """Sections under their group of questions, by their place in it."""
    order = [group.capitalize() for group in GROUPS] + [_OTHERS]
    by_group: dict[str, list[Section]] = {group: [] for group in order}
    for one in sorted(sections, key=lambda one: (one.place, one.experiment)):
        by_group[one.group or _OTHERS].append(one)
    return [(group, here) for group, here in by_group.items() if here]


def _add_atlas(model: ModelOnPage, folder: str) -> None:
    parts = [one.part for one in model.runs if one.part is not None and one.part.columns]
    if not parts:
        return
    anchors = {one.experiment: one.anchor for one in model.runs if one.part is not None}
    try:
        layers = layers_of_parts(model.name, parts)
    except LayerscopeError as error:  # results that do not belong together
        model.problem = str(error)
        warnings.warn(model.problem, stacklevel=2)
        return
    model.map = layer_map(layers, anchors)
    model.dossiers = tuple(dossiers(layers, model.runs, model.prefix, folder))
    model.sentences = tuple(_linked(layers, model))


def _linked(layers: Layers, model: ModelOnPage) -> list[Linked]:
    claims = {
        one.experiment: [card.claim for card in one.claims] for one in model.runs if one.part is not None
    }
    return [Linked(one.about, one.text, _evidence(one, model)) for one in first_sentences(layers, claims)]


def _evidence(sentence: FirstSentence, model: ModelOnPage) -> str:
    """The anchor of a claim's card; of what the atlas says, that of the layers."""
    for one in model.runs:
        for card in one.claims:
            if one.experiment == sentence.experiment and card.claim == sentence.claim:
                return card.anchor
    return f"{model.prefix}layers"
