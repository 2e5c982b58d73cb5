"""Which targets are looked at, and how much of their context: shared by what asks how far back a model reads."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerscope.errors import LayerscopeError
from layerscope.experiments._contract import Inputs
from layerscope.text.tokenised import TokenisedPassage

# Two or three capitalised words behind a small one: a name, whatever else may also look like one.
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+(?: [A-Z][a-z]+){1,2}(?!\w)")


def in_tokens(lengths: Sequence[float], longest: int) -> tuple[int, ...]:
    """Context lengths in tokens: those below 1 are shares of the longest passage; increasing, none twice."""
    return tuple(
        sorted({max(1, round(length * longest)) if length < 1 else int(length) for length in lengths})
    )


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


def need_bos(inputs: Inputs) -> None:
    """Refuse texts that do not begin with BOS: what is left of a cut text would begin with a mere word.

    Raises:
        LayerscopeError: with the name of the first such passage.
    """
    for passage in inputs.passages:
        if not passage.tokens.bos:
            raise LayerscopeError(
                "a truncated context needs BOS in front of it",
                found=f"{passage.name} begins with an ordinary token (the tokenizer has no BOS, or --bos never)",
                expected="a tokenizer with a BOS, and the policy auto or always",
                hint="--bos always",
            )


def names_in(passages: Sequence[TokenisedPassage], at_most: int) -> list[str]:
    """Names that the passages hold, in order: two or three capitalised words in a row behind a small one."""
    found = (match.group() for passage in passages for match in _NAME.finditer(passage.passage.text))
    return list(dict.fromkeys(found))[:at_most]
