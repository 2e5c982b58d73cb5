"""How context_reading is cut: one passage, some targets."""

from __future__ import annotations

from collections.abc import Iterator

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.evidence.distances import (
    ends_of_ranges,
    far_targets,
    longest_first,
    longest_passage,
    need_bos,
)
from layerscope.experiments.context_reading.settings import Settings
from layerscope.text.tokenised import TokenisedPassage


class ReadingItem(WorkItem):
    """One passage, to be read at some targets."""

    passage: TokenisedPassage
    targets: tuple[int, ...]
    ends: tuple[int, ...]
    tokens_per_pass: int


def reading_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[ReadingItem]:
    """The longest passages, each with targets that have something beyond the last range."""
    need_bos(inputs)
    ends = ends_of_ranges(settings.ranges, longest_passage(inputs))
    for passage in longest_first(inputs.passages, settings.cut_passages):
        targets = far_targets(len(passage.tokens), ends[-1], settings.targets)
        if targets:
            rows = 2 + len(ends) + 1 + 2
            yield ReadingItem(
                name=passage.name,
                size=inputs.facts.operations(
                    rows * len(passage.tokens) + len(targets) * (ends[0] + ends[-1] + 2)
                ),
                passage=passage,
                targets=targets,
                ends=ends,
                tokens_per_pass=inputs.tokens_per_pass,
            )
