"""What was asked for: directions near to words, what a language model said, and the texts of tokens that are shown."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.experiments.weight_directions.conclude.rated import Rated
from layerscope.experiments.weight_directions.settings import SINGULAR, Settings
from layerscope.maths.decompositions import alignment_p
from layerscope.maths.permutation import holm
from layerscope.results.schema import quantity

_SEARCH_HITS = 40
_SHOWN = ("top_token", "together_token", "pair_asks", "pair_answers")


def search(rated: Rated, settings: Settings, vocabulary: xr.Dataset) -> xr.Dataset:
    """The directions nearest to the words that were asked for, with p over all directions."""
    if not settings.search:
        return xr.Dataset()
    rows = np.flatnonzero((rated.rows.origin.values == SINGULAR) & np.isfinite(rated.rows.answer.values))
    cosines = rated.rows.answer.values[rows]
    width = int(vocabulary.attrs["width"])
    p = holm(alignment_p(cosines, width)) if rows.size else np.zeros(0)
    order = np.argsort(-abs(cosines), kind="stable")[:_SEARCH_HITS]
    chosen = rows[order]
    return xr.Dataset(
        {
            "answer": quantity(cosines[order], "found", "cosine of the direction with the words"),
            "answer_p": quantity(
                p[order], "found", "p of a random direction lying as near, by Holm over all"
            ),
            "found_rank": quantity(rated.rows["rank"].values[chosen], "found", "place in its matrix"),
        },
        coords={
            "found_layer": xr.Variable(
                ("found",), rated.rows.direction_layer.values[chosen], {"long_name": "layer"}
            ),
            "found_kind": xr.Variable(
                ("found",), rated.rows.direction_kind.values[chosen], {"long_name": "kind"}
            ),
            "found_matrix": xr.Variable(
                ("found",), rated.rows.direction_matrix.values[chosen], {"long_name": "matrix"}
            ),
            "found": xr.Variable(("found",), chosen, {"long_name": "direction that answers to the words"}),
        },
    )


def conversation(answers: xr.Dataset) -> xr.Dataset:
    """What the language model was asked and said, and what it cost."""
    if "asked" not in answers.sizes:
        return xr.Dataset()
    cost = {
        f"rater_{name}": quantity(
            int(answers[name].sum()), "", f"{what} of the language model, in all", "token"
        )
        for name, what in (
            ("prompt_tokens", "tokens of the questions"),
            ("completion_tokens", "tokens of the answers"),
        )
    }
    return answers.assign(cost).drop_attrs(deep=False)


def named_tokens(result: xr.Dataset, vocabulary: xr.Dataset) -> xr.Dataset:
    """The texts of the tokens that are shown, along `entry`."""
    ids = [result[name].values.ravel() for name in _SHOWN if name in result]
    shown = np.unique(np.concatenate(ids)).astype(int) if ids else np.zeros(0, int)
    return result.merge(
        vocabulary[["token_text", "occurrences", "fragment", "part_of_speech"]].isel(entry=shown),
        compat="override",
        join="outer",
    )
