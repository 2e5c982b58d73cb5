"""Passages that have labels: which kinds of label there are, and from which token on each is given."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import xarray as xr
from pydantic import Field

from layerscope.contract import OPERATIONS_A_SECOND, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.text.prompt_files import UNCATEGORISED
from layerscope.text.tokenised import TokenisedPassage

GENRE, ANNOUNCED = "genre", "announced"


class PassageItem(WorkItem):
    """One passage, its label of each kind ("": none), and the positions at which they are given (−1: it has none)."""

    passage: TokenisedPassage
    kinds: tuple[str, ...]
    labels: tuple[str, ...]
    given: tuple[int, ...]
    tokens: int
    not_asked: tuple[str, ...] = Field((), description="why labels that passages have are not asked about")


def passage_items(
    passages: Sequence[TokenisedPassage],
    pattern: str,
    tokens: int,
    fewest: int,
    columns: Sequence[str] | None = None,
) -> Iterator[PassageItem]:
    """Passages that have a label which enough passages share, in their order; where there are no two labels, only why.

    Args:
        passages: what is read.
        pattern: its first group is the label that a passage announces; "" for none.
        tokens: how far each passage is read.
        fewest: passages that a label must have.
        columns: labels of the passages' file that are asked about; None for all that can be.

    Raises:
        LayerscopeError: a pattern that is none, or a column that cannot be asked about.
    """
    announced = [_announced(passage, pattern) for passage in passages]
    every = _every_label(passages, [label for label, _ in announced])
    kept = {kind: classes for kind, labels in every.items() if (classes := _frequent(labels, fewest))}
    if columns is not None:
        _check_columns(columns, every, kept, fewest)
        kept = {kind: kept[kind] for kind in kept if kind in (GENRE, ANNOUNCED, *columns)}
    not_asked = tuple(_why_not(every, kept, fewest)) if passages else ()
    if not kept and not_asked:
        yield _item("labels", passages[0], {}, (), 0, not_asked)
    for number, (passage, (_, said)) in enumerate(zip(passages, announced, strict=True)):
        own = {kind: label if (label := every[kind][number]) in kept[kind] else "" for kind in kept}
        starts = (said if kind == ANNOUNCED else int(passage.tokens.bos) for kind in kept)
        given = tuple(start if label else -1 for start, label in zip(starts, own.values(), strict=True))
        read = _needed(min(tokens, len(passage.tokens)), given)
        if any(own.values()) and read:
            yield _item(passage.name, passage, own, given, read, not_asked)


def _item(
    name: str,
    passage: TokenisedPassage,
    labels: Mapping[str, str],
    given: tuple[int, ...],
    tokens: int,
    not_asked: tuple[str, ...],
) -> PassageItem:
    return PassageItem(
        name=name,
        size=0.002 * OPERATIONS_A_SECOND,
        passage=passage,
        kinds=tuple(labels),
        labels=tuple(labels.values()),
        given=given,
        tokens=tokens,
        not_asked=not_asked,
    )


def _every_label(passages: Sequence[TokenisedPassage], announced: Sequence[str]) -> dict[str, list[str]]:
    """Of each kind, the label of each passage; "" where it has none."""
    every = {
        GENRE: ["" if p.passage.genre == UNCATEGORISED else p.passage.genre for p in passages],
        ANNOUNCED: list(announced),
    }
    names = dict.fromkeys(name for passage in passages for name in passage.passage.labels)
    columns = {name: [p.passage.labels.get(name, "") for p in passages] for name in names}
    return every | {f"{name} (column)" if name in every else name: those for name, those in columns.items()}


def _why_not(every: Mapping[str, Sequence[str]], kept: Mapping[str, object], fewest: int) -> Iterator[str]:
    """Why the genre, or what passages announce, is not asked about; for lack of any label at all, that."""
    for kind in (GENRE, ANNOUNCED):
        counts = Counter(label for label in every[kind] if label)
        name = "the label that passages announce" if kind == ANNOUNCED else "the genre of passages"
        if counts and kind not in kept:
            yield (
                f"{name} is not asked about: fewer than two labels have {fewest} passages "
                f"({len(counts)} label{'s' * (len(counts) > 1)}, {counts.total()} passages)"
            )
    if not any(any(labels) for labels in every.values()):
        yield "nothing is asked about passages: they have no labels"


def _check_columns(
    columns: Sequence[str], every: Mapping[str, Sequence[str]], kept: Mapping[str, object], fewest: int
) -> None:
    for column in columns:
        if column not in kept:
            counts = Counter(label for label in every.get(column, ()) if label)
            there = ", ".join(f"{label} {count}" for label, count in counts.most_common(5))
            raise LayerscopeError(
                f"passages cannot be grouped by the label {column!r}",
                found=f"passages by label: {there}" if there else f"the labels {', '.join(every)}",
                expected=f"a column of the passages' file with two labels of at least {fewest} passages each",
                hint=f"--set documents_per_label={max(2, fewest // 2)}, or more passages"
                if there
                else "--passages FILE.jsonl with this field in every line",
            )


def _announced(passage: TokenisedPassage, pattern: str) -> tuple[str, int]:
    """The label that a passage announces, and the position of the last token that says it."""
    try:
        compiled = re.compile(pattern)
        if pattern and not compiled.groups:
            raise re.error("it has no group")
    except re.error as error:
        raise LayerscopeError(
            "the pattern of announced labels cannot be used",
            found=f"{pattern!r}: {error}",
            expected=r"a regular expression whose first group is the label, such as Speech: (\w+)",
            hint="--set announced=''   to do without",
        ) from error
    match = compiled.search(passage.passage.text) if pattern else None
    if match is None or not match[1]:
        return "", -1
    inside = [place for place, (start, end) in enumerate(passage.tokens.spans) if start < match.end(1) <= end]
    return (match[1], inside[-1]) if inside else ("", -1)


def _frequent(labels: Sequence[str], fewest: int) -> set[str]:
    counts = Counter(label for label in labels if label)
    kept = {label for label, count in counts.items() if count >= fewest}
    return kept if len(kept) > 1 else set()


def _needed(tokens: int, given: Sequence[int]) -> int:
    """Tokens up to the last one that is read: 2ⁿ behind a label, as far as the text goes; 0 if there is none."""
    behind = [(place, tokens - 1 - place) for place in given if place >= 0]
    return max((place + (1 << left.bit_length() - 1) + 1 for place, left in behind if left > 0), default=0)


def read_since(since: xr.DataArray) -> np.ndarray:
    """Which tokens are read: 1, 2, 4, 8, … tokens after the label was given; not those before it."""
    steps = since.to_numpy()
    positive = np.maximum(steps, 1)
    return (steps > 0) & (positive & (positive - 1) == 0)


def read_of_any_label(rows: xr.Dataset) -> np.ndarray:
    """Rows of tokens that are read for the sake of any label."""
    return np.flatnonzero(read_since(rows.since).any(axis=1))


FOLDS = 4
"""Parts of the passages, of which each is tested by probes that were trained on the others."""


def numbered_labels(rows: xr.Dataset, kind: int) -> tuple[int, np.ndarray]:
    """How many labels of a kind there are, and the number of each passage's; −1 where it has none."""
    classes, labels = np.unique(rows.passage_label[kind], return_inverse=True)
    has = classes != ""
    return int(has.sum()), labels.reshape(-1) - int(not has.all())


def folds_of(labels: np.ndarray, seed: int) -> np.ndarray:
    """A fold for each passage; every label is spread over all folds."""
    order = np.random.default_rng([seed, 2]).permutation(len(labels))
    fold = np.empty(len(labels), dtype=int)
    for label in set(labels.tolist()):
        mine = order[labels[order] == label]
        fold[mine] = np.arange(len(mine)) % FOLDS
    return fold
