"""What the stages of word_position_probe cost, in operations; and what they will, before prompts are written."""

from __future__ import annotations

from collections.abc import Iterator

from layerscope.contract import OPERATIONS_A_SECOND, Inputs
from layerscope.experiments.word_position_probe.settings import Settings

_A_CASE = 1.6e4
"""Operations for each case and entry of its state of a probe at a depth: labels times steps, seen by trying."""

LOOKS, MOVES = 2, 5
"""Passes over the prompts of the causal steps: with attention read; with a state moved, four ways and none."""

SIZE_OF_TYPES = 0.3 * OPERATIONS_A_SECOND

_BESIDE_THE_WORDS = 6  # tokens of a prompt, about: what stands first, and the prefix


def size_of_fits(inputs: Inputs, settings: Settings, tasks: int, depths: int) -> float:
    """Probes of some tasks at some depths."""
    cases = settings.train_prompts * settings.prompt_words
    return float(tasks * depths * cases * inputs.facts.width * _A_CASE)


def size_of_steps(inputs: Inputs, settings: Settings) -> float:
    """One pass over the prompts of the causal steps."""
    return inputs.facts.operations(min(settings.causal_prompts, settings.test_prompts) * _tokens(settings))


def expected_groups(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Sizes of what is read, one for each side of an arm."""
    arms = 2 + settings.names + settings.sentences + settings.untrained
    for prompts in (settings.test_prompts, settings.train_prompts):
        for _ in range(arms):
            yield inputs.facts.operations(prompts * _tokens(settings))


def expected_main(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Size of the probe of words' last pieces."""
    yield size_of_fits(inputs, settings, 1, inputs.facts.n_layers + 1)


def expected_scores(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Sizes of every task."""
    yield SIZE_OF_TYPES
    for tasks in (4, 2, *[1] * (settings.untrained + settings.sentences + settings.names)):
        yield size_of_fits(inputs, settings, tasks, inputs.facts.n_layers + 1)


def expected_looks(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Size of watching what heads look at."""
    yield LOOKS * size_of_steps(inputs, settings)


def expected_heads(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Sizes of the sets of heads that are ablated: two by what they look at, and controls."""
    for _ in range(2 + settings.ablation_controls):
        yield size_of_steps(inputs, settings)


def expected_moves(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Size of moved states."""
    yield MOVES * size_of_steps(inputs, settings)


def _tokens(settings: Settings) -> float:
    return settings.prompt_words * (settings.fewest_pieces + settings.most_pieces) / 2 + _BESIDE_THE_WORDS
