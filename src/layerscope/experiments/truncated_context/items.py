"""How truncated_context is cut: passages read whole, passages cut before their targets, names behind a prefix."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.distances import (
    donors,
    in_tokens,
    last_targets,
    longest_first,
    longest_passage,
    names_in,
    need_bos,
)
from layerscope.evidence.mean_states import MeanItem, mean_items
from layerscope.experiments.truncated_context.settings import Settings
from layerscope.text.tokenised import TokenisedPassage
from layerscope.text.tokens import BosPolicy

_PREFIXED = 8  # tokens of a name behind its prefix, with and without
_WHOLE = 3  # the text, the one that stands in its place, and the text at moved positions


class CutItem(WorkItem):
    """One passage, to be cut before some of its tokens."""

    passage: TokenisedPassage
    donor: TokenisedPassage | None = Field(description="another passage, to stand in this one's place")
    targets: tuple[int, ...]
    climbing: tuple[int, ...] = Field(description="those of the targets that climb the ladder")
    kept: tuple[int, ...] = Field(description="all context lengths, in tokens")
    ladder: tuple[int, ...] = Field(description="those of them that are the ladder")
    names: tuple[str, ...] = Field(description="known names")
    tokens_per_pass: int


class PrefixItem(WorkItem):
    """Names, to be read with and without a prefix."""

    names: tuple[str, ...]
    bos: BosPolicy
    tokens_per_pass: int


def whole_passages(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[MeanItem]:
    """Every passage, once; refused where no context could be cut."""
    need_bos(inputs)
    if longest_passage(inputs) < 3:
        raise LayerscopeError(
            "no context is left to cut",
            found=f"the longest passage has {longest_passage(inputs)} tokens with BOS",
            expected="passages of at least two tokens behind BOS",
            hint="longer passages",
        )
    yield from mean_items(inputs, settings, earlier)


def cut_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[CutItem]:
    """The longest passages, each with its targets and another passage beside it."""
    ladder = in_tokens(settings.ladder, longest_passage(inputs))
    kept = tuple(sorted({*range(1, settings.every + 1), settings.local, *ladder}))
    used = longest_first(inputs.passages, settings.cut_passages)
    names = tuple(settings.names or names_in(used, at_most=1000))
    for passage, donor in zip(used, donors(used), strict=True):
        targets = last_targets(passage, settings.targets)
        if not targets:
            continue
        climbing = targets[:: -settings.ladder_step][::-1]
        cells = cells_of(targets, climbing, kept, settings)
        yield CutItem(
            name=passage.name,
            size=inputs.facts.operations(_WHOLE * len(passage.tokens) + 2 * len(targets) + _tokens_of(cells)),
            passage=passage,
            donor=donor,
            targets=tuple(targets),
            climbing=tuple(climbing),
            kept=kept,
            ladder=ladder,
            names=tuple(name for name in names if name in passage.passage.text),
            tokens_per_pass=inputs.tokens_per_pass,
        )


def cells_of(
    targets: list[int] | tuple[int, ...],
    climbing: list[int] | tuple[int, ...],
    kept: tuple[int, ...],
    settings: Settings,
) -> list[tuple[int, int]]:
    """Targets and context lengths at which something is cut; the ladder for those that climb it."""
    climbs = set(climbing)
    return [
        (target, length)
        for target in targets
        for length in kept
        if length < target and (length <= settings.every or target in climbs)
    ]


def _tokens_of(cells: list[tuple[int, int]]) -> int:
    """Tokens of the fewest runs that give these cells, with what stands first."""
    from layerscope.runs.window_passes import windows_for  # torch, which readers of this file can do without

    return sum(window.length + 1 for window in windows_for(cells))


def prefix_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[PrefixItem]:
    """All names together: they are short."""
    found = list(settings.names) or names_in(inputs.passages, settings.most_names)
    names = tuple(dict.fromkeys(found))[: settings.most_names]
    if names:
        yield PrefixItem(
            name="names behind a prefix",
            size=inputs.facts.operations(2 * _PREFIXED * len(names)),
            names=names,
            bos=inputs.bos,
            tokens_per_pass=inputs.tokens_per_pass,
        )
