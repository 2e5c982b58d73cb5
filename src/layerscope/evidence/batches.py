"""Which texts are read together: those of equal length, never padded; and in which order kinds of them are taken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import TypeVar

Thing = TypeVar("Thing")


def in_batches(
    things: Iterable[Thing], tokens_per_pass: int, *, length: Callable[[Thing], int]
) -> Iterator[list[Thing]]:
    """Things of equal length together, at most so many tokens in a batch; lengths in rising order."""
    by_length: dict[int, list[Thing]] = defaultdict(list)
    for thing in things:
        by_length[length(thing)].append(thing)
    for tokens, own in sorted(by_length.items()):
        at_once = max(1, tokens_per_pass // tokens)
        yield from (own[start : start + at_once] for start in range(0, len(own), at_once))


def in_turn(things: Iterable[Thing], kind: Callable[[Thing], str]) -> list[Thing]:
    """The first of every kind, then the second of every one, and so on: however few are taken, each kind has some."""
    kinds: dict[str, list[Thing]] = defaultdict(list)
    for thing in things:
        kinds[kind(thing)].append(thing)
    return [thing for row in zip_longest(*kinds.values()) for thing in row if thing is not None]
