"""One token cut in two: the same text, written with two tokens where the tokenizer would write one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


def token_cutter(tokenizer: Any) -> Callable[[int], tuple[int, int] | None]:
    """A function that cuts a token in two.

    A byte-pair tokenizer is asked for the merge that made the token (the first that gives it, in the order
    of merges); any other for two entries of its vocabulary that read as the token when put together, as
    equal in length as there are.

    Returns:
        token id -> the ids of its two halves, or None where it has none: single characters, special
        tokens, tokens whose halves are no tokens.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    model = json.loads(inner.to_str())["model"] if inner is not None else {}
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    special = set(getattr(tokenizer, "all_special_ids", ()))
    texts = {number: text for text, number in vocabulary.items()}
    merges = _merges(model)
    continued = str(model.get("continuing_subword_prefix") or "")

    def cut(token: int) -> tuple[int, int] | None:
        text = texts.get(token)
        if text is None or token in special:
            return None
        pair = merges.get(text) if merges else _halves(text, vocabulary, continued)
        if pair is None or pair[0] not in vocabulary or pair[1] not in vocabulary:
            return None
        return vocabulary[pair[0]], vocabulary[pair[1]]

    return cut


def _merges(model: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """By merged text, the first pair that gives it."""
    found: dict[str, tuple[str, str]] = {}
    for merge in model.get("merges") or ():
        left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
        found.setdefault(left + right, (left, right))
    return found


def _halves(text: str, vocabulary: Mapping[str, int], continued: str) -> tuple[str, str] | None:
    cuts = sorted(range(1, len(text)), key=lambda place: abs(len(text) - 2 * place))
    pairs = ((text[:place], continued + text[place:]) for place in cuts)
    return next((pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary), None)
