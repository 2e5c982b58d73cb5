"""Rated directions of several blocks as rows of one Dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.experiments.weight_directions.settings import RATERS, SIGNS, Settings
from layerscope.results.schema import quantity

_WORDS = {
    "direction_layer": ("direction", "layer of the direction"),
    "direction_kind": ("direction", "what the direction is of"),
    "direction_matrix": ("direction", "matrix of the direction"),
    "origin": ("direction", "singular direction, or which control"),
}
_NUMBERS = {
    "rank": ("direction", "place among the matrix's singular values", "1"),
    "scale": ("direction", "singular value", "1"),
    "gap": ("direction", "singular value over the next", "1"),
    "subspace": ("direction", "subspace of near-equal singular values, -1 for controls", "1"),
    "top_token": ("direction sign place", "id of a token at the end of a direction", "1"),
    "strength": ("direction sign place", "score of the token, in standard deviations of all tokens", "1"),
    "coherence": ("direction sign rater", "mean pairwise cosine of the tokens at an end", "1"),
    "matched_coherence": ("direction sign rater", "the same of other tokens that occur about as often", "1"),
    "answer": ("direction", "cosine with the words searched for", "1"),
}


def joined_parts(parts: Sequence[dict[str, np.ndarray]], settings: Settings) -> xr.Dataset:
    """The rows of several blocks as one Dataset along `direction`."""
    empty: dict[str, np.ndarray] = {
        "top_token": np.zeros((0, 2, settings.top_tokens), np.int32),
        "strength": np.zeros((0, 2, settings.top_tokens), np.float32),
        "coherence": np.zeros((0, 2, len(RATERS)), np.float32),
        "matched_coherence": np.zeros((0, 2, len(RATERS)), np.float32),
        "direction_layer": np.zeros(0, np.int64),
        "rank": np.zeros(0, np.int64),
        "subspace": np.zeros(0, np.int64),
    }

    def column(name: str) -> np.ndarray:
        given = [part[name] for part in parts]
        if given:
            return np.concatenate(given)
        return empty.get(name, np.zeros(0, "U1" if name in _WORDS else np.float64))

    variables = {
        name: quantity(column(name), dims, what, unit) for name, (dims, what, unit) in _NUMBERS.items()
    }
    coordinates = {
        name: (
            number_coordinate(column(name), dims, what)
            if name == "direction_layer"
            else xr.Variable((dims,), column(name).astype(str), {"long_name": what})
        )
        for name, (dims, what) in _WORDS.items()
    }
    return xr.Dataset(
        variables,
        coords=coordinates
        | {
            "sign": text_coordinate(list(SIGNS), "sign", "end of a direction; + stands out further"),
            "place": number_coordinate(
                range(settings.top_tokens), "place", "place of a token, strongest first"
            ),
            "rater": text_coordinate(list(RATERS), "rater", "whose vectors of the tokens are compared"),
        },
    )
