"""Which targets are looked at, and how much of their context: shared by what asks how far back a model reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import xarray as xr
from pydantic import Field, field_validator

from layerscope.contract import ExperimentSettings, Inputs
from layerscope.errors import LayerscopeError
from layerscope.evidence.coordinates import number_coordinate
from layerscope.text.tokenised import TokenisedPassage

# Two or three capitalised words behind a small one: a name, whatever else may also look like one.
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+(?: [A-Z][a-z]+){1,2}(?!\w)")


MIXING = "mixing at random already moves indices of depth away from 0"
"""Why untrained twins show an effect in indices by depth (docs/local_processing.md)."""


def positive(lengths: tuple[float, ...]) -> tuple[float, ...]:
    """Shares below 1, or whole numbers; anything else is refused."""
    if not all(np.isfinite(length) and length > 0 for length in lengths):
        raise ValueError("positive numbers: shares below 1, or whole numbers")
    return lengths


class RangesOfDistance(ExperimentSettings):
    """The choice of near and far, alike wherever it is made: indices can be compared."""

    ranges: tuple[float, ...] = Field(
        (0.04, 0.125, 0.5),
        min_length=1,
        description="ends of the ranges of distance: below 1 shares of the longest passage, else tokens; the first "
        "range is near, what lies beyond the last end is far",
    )

    _ranges_are_positive = field_validator("ranges")(positive)


def in_tokens(lengths: Sequence[float], longest: int) -> tuple[int, ...]:
    """Context lengths in tokens: those below 1 are shares of the longest passage; increasing, none twice."""
    return tuple(
        sorted({max(1, round(length * longest)) if length < 1 else int(length) for length in lengths})
    )


def ends_of_ranges(ranges: Sequence[float], longest: int, *, behind: int = 0) -> tuple[int, ...]:
    """Where ranges of distance end, in tokens: increasing, the nearest range holding at least one distance.

    Args:
        ranges: shares of the longest passage where below 1, else tokens.
        longest: tokens of that passage, BOS included.
        behind: tokens that must follow a target.

    Raises:
        LayerscopeError: no token has anything but BOS beyond the last range.
    """
    ends = tuple(dict.fromkeys(max(2, end) for end in in_tokens(ranges, longest)))
    if ends[-1] >= longest - 1 - behind:
        raise LayerscopeError(
            "no token has anything beyond the last range",
            found=f"ranges up to {ends[-1]} tokens; the longest passage has {longest - 1} behind BOS",
            expected="passages longer than the ranges",
            hint="--set 'ranges=[0.04, 0.25]', longer passages, or --longest",
        )
    return ends


def names_of_ranges(ends: Sequence[int]) -> list[str]:
    """How ranges of distance are called, from the nearest to what lies beyond the last end."""
    names = [f"{a} to {b - 1} back" if b > a + 1 else f"{a} back" for a, b in pairwise((1, *ends))]
    return [*names, f"{ends[-1]} back and more"]


def far_targets(n_tokens: int, farthest: int, count: int) -> tuple[int, ...]:
    """Evenly spread over the positions that have as much far context as there can be, in the last half of them."""
    first = min(max(farthest + 1, (farthest + n_tokens) // 2), n_tokens - 1)
    if first <= farthest:
        return ()
    return tuple(sorted({int(place) for place in np.linspace(first, n_tokens - 1, count).round()}))


def longest_passage(inputs: Inputs) -> int:
    """Tokens of the longest passage as it is read, BOS included."""
    return max(len(passage.tokens) for passage in inputs.passages)


def longest_first(passages: Sequence[TokenisedPassage], count: int) -> list[TokenisedPassage]:
    """The `count` longest passages; equally long ones in their order."""
    return sorted(passages, key=lambda passage: -len(passage.tokens))[:count]


def last_targets(passage: TokenisedPassage, count: int, *, first: int = 2) -> list[int]:
    """The last `count` positions of a passage, those before `first` left out: what stands there has context to lose."""
    n = len(passage.tokens)
    return list(range(max(first, n - count), n))


def donors(passages: Sequence[TokenisedPassage]) -> list[TokenisedPassage | None]:
    """For each passage another one to stand in its place: the next that is at least as long, or else the longest."""
    found: list[TokenisedPassage | None] = []
    for place, passage in enumerate(passages):
        others = [*passages[place + 1 :], *passages[:place]]
        enough = [other for other in others if len(other.tokens) >= len(passage.tokens)]
        found.append(enough[0] if enough else max(others, key=lambda other: len(other.tokens), default=None))
    return found


def unread(passage: TokenisedPassage, tokens: int) -> xr.Variable:
    """For every token of a part of the result: how many tokens of its passage did not fit and are not read."""
    return number_coordinate(
        [passage.cut] * tokens, "token", "tokens at the end of its passage that are not read"
    )


def cautions_of_unread(result: xr.Dataset) -> list[str]:
    """What must be said where passages are longer than what was read of them."""
    passages, first = np.unique(result.token_passage.values, return_index=True)
    cut = result.token_unread.values[first]
    if not cut.any():
        return []
    return [
        f"{int((cut > 0).sum())} of {len(passages)} passages are longer than what is read of them, by up to "
        f"{int(cut.max())} tokens: --longest says how much is, up to the model's context."
    ]


def need_bos(inputs: Inputs) -> None:
    """Refuse texts before which nothing was put: what is left of a cut text would begin with a mere word.

    Raises:
        LayerscopeError: with the name of the first such passage.
    """
    for passage in inputs.passages:
        if not passage.tokens.bos:
            raise LayerscopeError(
                "a truncated context needs a token to stand first",
                found=f"{passage.name} begins with an ordinary token (--bos never, or no special token to be had)",
                expected="a special token in front of every text",
                hint="--bos auto   (or --bos TOKEN)",
            )


def names_in(passages: Sequence[TokenisedPassage], at_most: int) -> list[str]:
    """Names that the passages hold, in order: two or three capitalised words in a row behind a small one."""
    found = (match.group() for passage in passages for match in _NAME.finditer(passage.passage.text))
    return list(dict.fromkeys(found))[:at_most]


def context_of_range(name: str) -> str:
    """A range of distances as sentences say it: "context ≥ 128 tokens back", "context 1-9 tokens back"."""
    if name.endswith(" back and more"):
        return f"context ≥ {name.removesuffix(' back and more')} tokens back"
    said = name.removesuffix(" back").replace(" to ", "-")
    return f"context {said} token{'s' * (said != '1')} back"
