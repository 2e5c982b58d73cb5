"""Coordinates that say what a row of a result is about: whose token, where, which category."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from layerscope.results.escaping import restored, stored, visible
from layerscope.text.tokenised import TokenisedPassage, TokenisedPrompt


def text_coordinate(values: Sequence[str], dimension: str, long_name: str) -> xr.Variable:
    """Text along one dimension, in the stored form that any file can hold."""
    return xr.Variable(
        (dimension,), np.array([stored(value) for value in values], dtype=str), {"long_name": long_name}
    )


def number_coordinate(values: Any, dimension: str, long_name: str) -> xr.Variable:
    """Whole numbers along one dimension."""
    return xr.Variable((dimension,), np.asarray(values, dtype=np.int64), {"long_name": long_name})


def depth_coordinate(n_layers: int) -> xr.Variable:
    """The residual stream's axis: 0 .. n_layers blocks already applied."""
    return number_coordinate(range(n_layers + 1), "depth", "depth [layers applied]")


def layer_coordinate(n_layers: int) -> xr.Variable:
    """The axis of what happens inside blocks: 0 .. n_layers - 1."""
    return number_coordinate(range(n_layers), "layer", "layer")


def prompt_coordinates(prompt: TokenisedPrompt) -> dict[str, xr.Variable]:
    """One prompt: its name, its category, its pair where it has one."""
    return {
        "prompt": text_coordinate([prompt.name], "prompt", "prompt"),
        "prompt_category": text_coordinate([prompt.category], "prompt", "category of the prompt"),
        "prompt_pair": text_coordinate(
            [prompt.prompt.pair or ""], "prompt", "pair that the prompt belongs to"
        ),
    }


def prompts_coordinates(prompts: Sequence[TokenisedPrompt]) -> dict[str, xr.Variable]:
    """Several prompts: names, categories, pairs."""
    each = [prompt_coordinates(prompt) for prompt in prompts]
    return {
        name: xr.Variable(
            ("prompt",), np.concatenate([one[name].values for one in each]), each[0][name].attrs
        )
        for name in each[0]
    }


def prompt_token_coordinates(
    prompt: TokenisedPrompt, positions: Sequence[int], noised: Sequence[int]
) -> dict[str, xr.Variable]:
    """Some tokens of one prompt: whose, where, what they read as, whether noise falls on them."""
    is_noised = np.array([position in set(noised) for position in positions], dtype=bool)
    return {
        "token_prompt": text_coordinate([prompt.name] * len(positions), "token", "prompt of the token"),
        "position": number_coordinate(positions, "token", "position in the prompt"),
        "token_text": text_coordinate(
            [prompt.tokens.texts[p] for p in positions], "token", "token, as JSON text"
        ),
        "noised": xr.Variable(("token",), is_noised, {"long_name": "whether noise falls on the token"}),
    }


def passage_token_coordinates(passage: TokenisedPassage) -> dict[str, xr.Variable]:
    """All tokens of one passage: whose, where, what they read as."""
    n = len(passage.tokens)
    return {
        "token_passage": text_coordinate([passage.name] * n, "token", "passage of the token"),
        "token_genre": text_coordinate([passage.passage.genre] * n, "token", "genre of the passage"),
        "position": number_coordinate(range(n), "token", "position in the passage"),
        "token_text": text_coordinate(list(passage.tokens.texts), "token", "token, as JSON text"),
    }


def groups_along(dataset: xr.Dataset, coordinate: str) -> dict[str, np.ndarray]:
    """Indices of the rows of each group of a ragged dimension, in order of first appearance."""
    names = dataset[coordinate].values
    first = np.unique(names, return_index=True)[1]
    return {str(names[i]): np.flatnonzero(names == names[i]) for i in np.sort(first)}


_SPECIAL = re.compile(r"<\S+>|\[[A-Z]+\]")


def prompt_in_words(name: str, tokens: xr.DataArray, answer: str = "") -> str:
    """A prompt as a menu lists it, so that a reader finds it by its text: "Paris is in → France (world-001)".

    Args:
        name: stored name of the prompt; left out where it is the text itself.
        tokens: stored text of its tokens; a special token in front is left out.
        answer: stored text of the answer, where there is one.
    """
    texts = [restored(str(text)) for text in tokens.values]
    text = "".join(texts[1:] if texts and _SPECIAL.fullmatch(texts[0]) else texts).strip()
    said = f"{text} → {restored(answer).strip()}" if answer else text
    whose = restored(name)
    return visible(said if whose in ("", text) else f"{said} ({whose})", blanks=False)
