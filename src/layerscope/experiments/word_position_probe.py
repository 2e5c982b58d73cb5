"""Does a state know which word of the sentence it ends?

Prompts are a fixed prefix and then random words of one to three tokens each, length first, so that the
absolute position of a word's last token tells its index only in part. For every depth, a logistic
regression is trained on frozen states to tell which word of the prompt a token ends, and tested on prompts
of other words. What a guesser could do that knew nothing but the position is computed exactly. The score
that counts is taken within cells of equal position, every index weighing alike: there whoever knows only
the position scores exactly nothing, and 1 is perfect.

Beside it stand the same probe on the first piece of each word, on boundaries that come in another order,
on the untrained twin, on counts of token types in the place of states, behind a prefix without a full stop,
from one prefix to the other, and for two further coordinates: the sentence of a paragraph, and the name
across templates that the probe has not seen.

Two causal steps. A word's state is moved to where states of the next or the previous index lie, and the
attention of its token, the probes at later depths and the prediction are read. And heads are taken out:
those that attend most to beginnings of words, and those that attend most to the anchor.

Beware: a probe that reads the index does not show that the model uses it; that is what the causal steps
are for, and a moved state is one that the model never met. Counts of types do well wherever beginnings of
words have tokens of their own: a state that is the sum of the embeddings so far would do as well, so the
score to look at is the one above these counts. Intervals are over test prompts, for one set of words and
one training of the probe.

Source: Nanda & Gurnee 2023, "Tiny Mech Interp Projects: Emergent Positional Embeddings of Words".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field

from layerscope.errors import LayerscopeError
from layerscope.experiments import _word_causes, _word_claims, _word_figures, _word_probing, _word_summary
from layerscope.experiments._contract import Claim, Earlier, ExperimentSettings, Inputs, Stage, WorkItem
from layerscope.experiments._summaries import as_curve
from layerscope.experiments._word_design import PREFIXES
from layerscope.experiments._word_fitting import (
    case_states,
    direction_variables,
    directions,
    probes_of,
)
from layerscope.experiments._word_laying import lay
from layerscope.experiments._word_prompts import as_dataset, prompts_of
from layerscope.experiments._word_tasks import cases_of, seeded
from layerscope.results.schema import read_json
from layerscope.text.tokenised_words import TokenisedWord
from layerscope.text.tokens import BosPolicy

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

TAKES = {"words"}

_CONTROL_DIRECTIONS = 64


class Settings(ExperimentSettings):
    """Choices of the word position probe."""

    prefix: str = Field(
        "anchored",
        description=f"text before the words that ends in a sentence of its own: one of {', '.join(PREFIXES)} "
        "('post' is the post's), or any text",
    )
    bare_prefix: str = Field(
        "unanchored", description="text before the words without a full stop or line end, likewise"
    )
    prompt_words: int = Field(7, ge=2, le=30, description="words of each prompt (the post: 7)")
    fewest_pieces: int = Field(1, ge=1, description="tokens of the shortest words")
    most_pieces: int = Field(
        3, ge=1, description="tokens of the longest words; all lengths are equally likely"
    )
    train_prompts: int = Field(200, ge=10, description="prompts that probes are trained on (the post: 1,286)")
    test_prompts: int = Field(
        100, ge=4, description="prompts of held-out words that they are tested on (the post: 2,560)"
    )
    held_out: float = Field(0.2, gt=0, lt=1, description="share of the words that only test prompts use")
    penalty: float = Field(
        1.0,
        gt=0,
        description="weight of half the squared norm of the probe's weights beside the summed loss: 1 over "
        "scikit-learn's C (the post: 1, on seven times as many words)",
    )
    scheme: str = Field(
        "multinomial",
        pattern="^(multinomial|one-vs-rest)$",
        description="one softmax over all indices, or a yes-or-no probe for each (the post)",
    )
    scale: str = Field(
        "whole",
        pattern="^(whole|entries|none)$",
        description="states are centred and divided by one number for all entries ('whole': the penalty asks for "
        "directions that carry some of the state), each by its own SD ('entries'), or left as they are ('none', "
        "the post)",
    )
    fewest: int = Field(3, ge=1, description="test cases that an index needs at a position to count there")
    untrained: bool = Field(True, description="whether the untrained twin is probed too")
    sentences: bool = Field(True, description="whether the index of a sentence in a paragraph is probed too")
    names: bool = Field(True, description="whether the index of a name across templates is probed too")
    depth: int | None = Field(
        None,
        ge=1,
        description="depth of the causal steps and of the figure of guesses; by default a third of the "
        "blocks, which is the post's (4 of 12), fixed before anything is measured",
    )
    causal_prompts: int = Field(40, ge=2, description="test prompts of the causal steps")
    moved_word: int = Field(3, ge=1, description="index of the word whose state is moved, from 0")
    heads: int = Field(3, ge=1, description="heads taken out at a time")
    ablation_controls: int = Field(3, ge=0, description="draws of as many other heads of the same blocks")
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(2000, gt=0, description="bootstrap resamples of test prompts")


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


# -- the prompts ----------------------------------------------------------------------------------------


def _one_design(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[DesignItem]:
    _check(inputs, settings)
    prompts = settings.train_prompts + settings.test_prompts
    yield DesignItem(
        name="prompts", size=prompts, words=inputs.words, bos=inputs.bos, context=inputs.facts.context
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


def _design(model: LayeredModel, item: DesignItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    prompts, about = lay(model.tokenizer, item.words, item.bos, item.context, settings)
    watched = "pattern" not in model.refused and any(model.attention_modules)
    return as_dataset(prompts).assign_attrs(about | {"attention_seen": int(watched)})


def depth_of(settings: Settings, n_layers: int) -> int:
    """The depth at which the causal steps are taken."""
    return settings.depth or max(1, round(n_layers / 3))


# -- causes -----------------------------------------------------------------------------------------------


def _looks_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[CausesItem]:
    if earlier["design"].attrs["attention_seen"]:
        size = float(earlier["design"].sizes["token"]) * 0.1
        yield CausesItem(name="attention", size=size, tokens_per_pass=inputs.tokens_per_pass)


def _looks(model: LayeredModel, item: CausesItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    train = prompts_of(earlier["design"], "anchored", test=False)[: settings.causal_prompts]
    anchors = read_json(earlier["design"], "anchors")
    depth = depth_of(settings, model.n_layers)
    return _word_causes.looks(model, train, anchors, depth, item.tokens_per_pass)


def _heads_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[HeadsItem]:
    if not earlier["looks"].sizes:
        return
    sets = _word_causes.head_sets(earlier["looks"], settings, depth=depth_of(settings, inputs.facts.n_layers))
    for name, heads in sets.items():
        yield HeadsItem(
            name=name,
            size=float(settings.causal_prompts),
            set_name=name,
            heads=tuple(heads),
            tokens_per_pass=inputs.tokens_per_pass,
        )


def _without_heads(model: LayeredModel, item: HeadsItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    design = earlier["design"]
    return _word_causes.without_heads(
        model,
        item.set_name,
        item.heads,
        prompts_of(design, "anchored", test=True)[: settings.causal_prompts],
        earlier["looks"],
        probes_of(earlier["probe"]),
        item.tokens_per_pass,
        design.sizes["unit"],
    )


def _directions_item(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[CausesItem]:
    size = float(settings.train_prompts * settings.prompt_words)
    yield CausesItem(name="directions", size=size, tokens_per_pass=inputs.tokens_per_pass)


def _directions(model: LayeredModel, item: CausesItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Where states of the next and the previous index lie, at the depth of the causal steps."""
    train = prompts_of(earlier["design"], "anchored", test=False)
    cases, depth = cases_of(train, "last"), depth_of(settings, model.n_layers)
    states = case_states(model, train, [depth], {"last": cases}, item.tokens_per_pass)["last"][0]
    rng = seeded(settings, "pairs alike")
    return direction_variables(directions(states, cases, settings.moved_word, rng, _CONTROL_DIRECTIONS))


def _moves_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[CausesItem]:
    ways = earlier["directions"]
    if np.isfinite(ways.later.values).all() and np.isfinite(ways.earlier.values).all():
        size = 5.0 * settings.causal_prompts
        yield CausesItem(name="moved states", size=size, tokens_per_pass=inputs.tokens_per_pass)


def _moves(model: LayeredModel, item: CausesItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    return _word_causes.moved(
        model,
        prompts_of(earlier["design"], "anchored", test=True)[: settings.causal_prompts],
        earlier["directions"],
        probes_of(earlier["probe"]),
        settings,
        depth=depth_of(settings, model.n_layers),
        tokens_per_pass=item.tokens_per_pass,
    )


STAGES = (
    Stage("design", items=_one_design, measure=_design),
    Stage("states", items=_word_probing.groups, measure=_word_probing.read, along=("group",)),
    Stage("probe", items=_word_probing.main_items, measure=_word_probing.main_probe, along=("depth",)),
    Stage("scores", items=_word_probing.score_items, measure=_word_probing.scores),
    Stage("looks", items=_looks_items, measure=_looks),
    Stage("without heads", items=_heads_items, measure=_without_heads),
    Stage("directions", items=_directions_item, measure=_directions),
    Stage("moves", items=_moves_items, measure=_moves),
)


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Scores within cells of equal position for every task and depth, ceilings, and what the causal steps change."""
    n_layers = stages["probe"].sizes["depth"] - 1
    return _word_summary.conclude(stages, settings, depth=depth_of(settings, n_layers))


def claims(result: xr.Dataset) -> list[Claim]:
    """Whether states know the index beyond the position, from where on, and whether the model uses it."""
    return _word_claims.claims(result)


def over_depth(result: xr.Dataset) -> xr.Dataset:
    """Score within cells of equal position at words' last pieces, beside the untrained twin's."""
    null = result.score.sel(task="untrained") if "untrained" in result.task.values else None
    return as_curve(result.sel(task="last"), "score", null=null)


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Scores over depth, guesses by position, moved states, heads taken out."""
    return _word_figures.draw(result)
