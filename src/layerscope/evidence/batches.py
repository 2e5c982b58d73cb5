"""Texts of equal length together: what one forward pass reads is never padded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
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
