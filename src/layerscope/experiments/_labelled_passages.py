"""Passages that have labels: which kinds of label there are, and from which token on each is given."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from pydantic import Field

from layerscope.contract import Earlier, ExperimentSettings, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.coordinates import text_coordinate
from layerscope.results.escaping import stored
from layerscope.results.schema import quantity, write_json
from layerscope.text.prompt_files import UNCATEGORISED
from layerscope.text.tokenised import TokenisedPassage

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

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
        size=max(1, tokens),
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
                f"passages cannot be told apart by the label {column!r}",
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


def rows_of(
    model: LayeredModel, item: PassageItem, settings: ExperimentSettings, earlier: Earlier
) -> xr.Dataset:
    """One passage's token ids and labels, and since how many tokens each label is given."""
    n = item.tokens
    if not item.kinds:
        return write_json(xr.Dataset(), not_asked=list(item.not_asked))
    since = np.stack([np.arange(n) - given if given >= 0 else np.full(n, -1) for given in item.given], axis=1)
    labels = np.array([[stored(label)] for label in item.labels], dtype=str)
    found = xr.Dataset(
        {
            "token_id": quantity(np.array(item.passage.tokens.ids[:n]), "token", "token id"),
            "since": quantity(since, "token label_kind", "tokens since the label was given"),
            "passage_tokens": quantity(np.array([n]), "passage", "tokens that are read"),
        },
        coords={
            "label_kind": text_coordinate(item.kinds, "label_kind", "which label"),
            "token_passage": text_coordinate([item.name] * n, "token", "passage of the token"),
            "passage": text_coordinate([item.name], "passage", "passage"),
            "passage_label": xr.Variable(
                ("label_kind", "passage"), labels, {"long_name": "label of the passage, or none"}
            ),
        },
    )
    return write_json(found, not_asked=list(item.not_asked))
