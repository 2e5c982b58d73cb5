"""How word_position_probe is cut: the design, texts read beforehand, probes at some depths, causal steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import OPERATIONS_A_SECOND, Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.probing import GroupItem, Weights, depth_chunks, group_items
from layerscope.experiments.word_position_probe.items.heads import head_sets
from layerscope.experiments.word_position_probe.items.prompts import prompts_of, texts_of
from layerscope.experiments.word_position_probe.items.sizes import (
    LOOKS,
    MOVES,
    SIZE_OF_TYPES,
    size_of_fits,
    size_of_steps,
)
from layerscope.experiments.word_position_probe.items.tasks import TASKS
from layerscope.experiments.word_position_probe.settings import Settings
from layerscope.results.schema import read_json
from layerscope.text.tokenised_words import TokenisedWord
from layerscope.text.tokens import BosPolicy

_ITEM_BYTES = 2**26
"""Of the states of depths that are fitted together: a fit of so many takes some seconds on one core."""


class DesignItem(WorkItem):
    """The words from which all prompts are written."""

    words: tuple[TokenisedWord, ...]
    bos: BosPolicy
    context: int | None


class CausesItem(WorkItem):
    """A causal step that is taken at one depth."""

    tokens_per_pass: int


class HeadsItem(WorkItem):
    """Heads to take out."""

    set_name: str
    heads: tuple[tuple[int, int], ...]
    tokens_per_pass: int


class DepthsItem(WorkItem):
    """Tasks whose probes are trained on the same states, at depths that are fitted together."""

    tasks: tuple[str, ...]
    depths: tuple[int, ...]
    tokens_per_pass: int


# -- the prompts ---------------------------------------------------------------------------------------


def one_design(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[DesignItem]:
    """All prompts at once, from the words of the list."""
    _check(inputs, settings)
    prompts = settings.train_prompts + settings.test_prompts
    yield DesignItem(
        name="prompts",
        size=prompts * 1e-3 * OPERATIONS_A_SECOND,
        words=inputs.words,
        bos=inputs.bos,
        context=inputs.facts.context,
    )


def _check(inputs: Inputs, settings: Settings) -> None:
    n_layers, most = inputs.facts.n_layers, settings.prompt_words - 2
    wrong = [
        (settings.most_pieces < settings.fewest_pieces, "most_pieces", f"at least {settings.fewest_pieces}"),
        (settings.moved_word > most, "moved_word", f"1 to {most}: a word with one before and one behind it"),
        ((settings.depth or 0) > n_layers, "depth", f"1 to {n_layers}"),
    ]
    for broken, name, expected in wrong:
        if broken:
            default = Settings.model_fields[name].default
            raise LayerscopeError(
                f"the setting {name} does not fit",
                found=f"{name} = {getattr(settings, name)}",
                expected=expected,
                hint=f"leave {name} out" if default is None else f"--set {name}={default}",
            )


# -- probes -----------------------------------------------------------------------------------------------


def groups(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[GroupItem]:
    """Everything that probes will read. What they read first is read last: if a cache is too small, that is left."""
    design = earlier["design"]
    arms = [arm for arm in ("names", "sentences") if arm not in read_json(design, "left_out", {})]
    asked: list[tuple[str, Weights]] = [(arm, "trained") for arm in arms]
    asked += [("anchored", "untrained")] * settings.untrained
    for arm, weights in [*asked, ("unanchored", "trained"), ("anchored", "trained")]:
        for side in ("test", "training"):
            kind = f"{arm} prompts for {side}"
            yield from group_items(
                texts_of_kind(design, kind), weights, kind, inputs.tokens_per_pass, facts=inputs.facts
            )


def texts_of_kind(design: xr.Dataset, kind: str) -> list[tuple[int, ...]]:
    """The texts that a group's kind names."""
    arm, _, _, side = kind.split()
    return texts_of(design, arm, test=side == "test")


def _depths_items(
    name: str, tasks: tuple[str, ...], inputs: Inputs, settings: Settings, design: xr.Dataset
) -> Iterator[DepthsItem]:
    """All depths, as many at a time as an item of a minute allows."""
    train = prompts_of(design, TASKS[tasks[0]].train, test=False)
    places = {TASKS[task].place for task in tasks}
    cases = len(train) * len(train[0].last) * len(places)
    for depths in depth_chunks(inputs.facts.n_layers + 1, cases, inputs.facts.width, most_bytes=_ITEM_BYTES):
        yield DepthsItem(
            name=f"{name}, depth{'s' * (len(depths) > 1)} {depths[0]}"
            + f" to {depths[-1]}" * (len(depths) > 1),
            size=size_of_fits(inputs, settings, len(tasks), len(depths)),
            tasks=tasks,
            depths=tuple(depths),
            tokens_per_pass=inputs.tokens_per_pass,
        )


def main_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[DepthsItem]:
    """The probe of words' last pieces, all depths."""
    yield from _depths_items("words", ("last",), inputs, settings, earlier["design"])


def score_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[DepthsItem]:
    """Every task at all depths; counts of types once."""
    design = earlier["design"]
    left_out = read_json(design, "left_out", {})
    groups: list[tuple[str, ...]] = [("last", "first", "shuffled", "onto unanchored")]
    groups += [("unanchored", "onto anchored")]
    groups += [("untrained",)] * settings.untrained
    groups += [(arm,) for arm in ("sentences", "names") if arm not in left_out]
    yield DepthsItem(name="types", size=SIZE_OF_TYPES, tasks=("types",), depths=(), tokens_per_pass=1)
    for group in groups:
        yield from _depths_items(TASKS[group[0]].says, group, inputs, settings, design)


# -- causal steps -------------------------------------------------------------------------------------------


def looks_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[CausesItem]:
    """What heads look at, where that can be watched."""
    if earlier["design"].attrs["attention_seen"]:
        size = LOOKS * size_of_steps(inputs, settings)
        yield CausesItem(name="attention", size=size, tokens_per_pass=inputs.tokens_per_pass)


def heads_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[HeadsItem]:
    """Each set of heads that is ablated."""
    if not earlier["looks"].sizes:
        return
    sets = head_sets(earlier["looks"], settings, depth=settings.depth_of(inputs.facts.n_layers))
    for name, heads in sets.items():
        yield HeadsItem(
            name=name,
            size=size_of_steps(inputs, settings),
            set_name=name,
            heads=tuple(heads),
            tokens_per_pass=inputs.tokens_per_pass,
        )


def directions_item(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[CausesItem]:
    """Where states of neighbouring indices lie."""
    size = 0.1 * OPERATIONS_A_SECOND
    yield CausesItem(name="directions", size=size, tokens_per_pass=inputs.tokens_per_pass)


def moves_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[CausesItem]:
    """Test prompts in which a state is moved, where there is a way to move it."""
    ways = earlier["directions"]
    if np.isfinite(ways.later.values).all() and np.isfinite(ways.earlier.values).all():
        size = MOVES * size_of_steps(inputs, settings)
        yield CausesItem(name="moved states", size=size, tokens_per_pass=inputs.tokens_per_pass)
