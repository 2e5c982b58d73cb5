"""Known sets of words (months, colours, forms of a verb): which of their words are tokens of a vocabulary?

Instruments that look for meaning are calibrated on them: what does not see months cannot say that there is nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from layerscope.bundled import bundled_folder
from layerscope.errors import LayerscopeError

FEWEST_SETS = 5
"""Known sets below which nothing can be said about an instrument's power."""


def known_token_sets(
    texts: Sequence[str], source: str, *, allowed: np.ndarray | None = None, fewest: int = 4
) -> dict[str, list[int]]:
    """Ids of the known sets' words that are one token, with a blank before them where there is such a token.

    Args:
        texts: what each token of the vocabulary reads as, in order of ids.
        source: a .json file of named sets; "auto" for the bundled English ones, "" for none.
        allowed: which tokens count; by default all.
        fewest: sets with fewer tokens are left out.

    Raises:
        LayerscopeError: the file cannot be read.
    """
    ids: dict[str, int] = {}
    for token, text in enumerate(texts):
        if allowed is None or allowed[token]:
            ids.setdefault(text, token)
    found = {}
    for name, words in _written(source).items():
        tokens = {ids.get(f" {word}", ids.get(word, -1)) for word in words} - {-1}
        if len(tokens) >= fewest:
            found[name] = sorted(tokens)
    return found


def _written(source: str) -> dict[str, list[str]]:
    if not source:
        return {}
    file = bundled_folder("token_sets") / "english.json" if source == "auto" else Path(source).expanduser()
    try:
        sets = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(sets, dict) or not all(isinstance(words, str) for words in sets.values()):
            raise ValueError("not an object of names and words")
    except (OSError, ValueError, RecursionError) as error:
        raise LayerscopeError(
            "the known sets of tokens cannot be read",
            found=f"{source}: {error}",
            expected='a .json file such as {"colours": "red green blue yellow"}',
            hint="--set known_sets=auto",
        ) from error
    return {name: words.split() for name, words in sets.items()}
