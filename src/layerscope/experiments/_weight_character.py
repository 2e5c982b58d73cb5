"""What else directions tell: the kind of their tokens, removals, words that were searched for, what a rater said."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import text_coordinate
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.experiments._weight_settings import OWN, RATERS, ROTATED, SINGULAR, Settings
from layerscope.maths.bootstrap import bootstrap_mean
from layerscope.maths.coherence import share_of_commonest
from layerscope.maths.correlation import rank_correlation
from layerscope.maths.decompositions import alignment_p
from layerscope.maths.permutation import holm
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.experiments._weight_rated import Rated

_SEARCH_HITS = 40
_SHOWN = ("top_token", "together_token", "pair_asks", "pair_answers")


def character(
    rated: Rated, vocabulary: xr.Dataset, kinds: Sequence[str], n_layers: int, settings: Settings, rater: str
) -> xr.Dataset:
    """Word fragments, parts of speech and frequency of the tokens at the better end."""
    rows = rated.rows
    place = RATERS.index(rater) if rater in RATERS else RATERS.index(OWN)
    values = rows.coherence.values[:, :, place]
    end = np.where(np.isnan(values), -np.inf, values).argmax(axis=1) if len(values) else np.zeros(0, int)
    tokens = rows.top_token.values[np.arange(len(end)), end]
    measures = _measures(tokens, vocabulary)
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=200)
    variables: dict[str, Any] = {}
    for name, (column, what, unit) in measures.items():
        cells = [
            [
                mean(column[rated.of(kind=kind, layer=layer, origin=SINGULAR)])
                if rated.of(kind=kind, layer=layer, origin=SINGULAR).size
                else mean(np.array([np.nan]))
                for layer in range(n_layers)
            ]
            for kind in kinds
        ]
        variables |= interval_variables(
            name, stacked([stacked(row) for row in cells]), "kind layer", f"{what}, at the better end", unit
        )
        rotated = [
            [_nanmean(column[rated.of(kind=kind, layer=layer, origin=ROTATED)]) for layer in range(n_layers)]
            for kind in kinds
        ]
        variables[f"{name}_rotated"] = quantity(
            np.array(rotated), "kind layer", f"{what}, of rotations", unit
        )
    best, frequency = rated.best[:, place], measures["frequency"][0]
    follows = [
        _spearman(best[rated.of(kind=kind, origin=SINGULAR)], frequency[rated.of(kind=kind, origin=SINGULAR)])
        for kind in kinds
    ]
    variables["follows_frequency"] = quantity(
        np.array(follows), "kind", "rank correlation of coherence with the tokens' mean log count"
    )
    return xr.Dataset(variables)


def _measures(tokens: np.ndarray, vocabulary: xr.Dataset) -> dict[str, tuple[np.ndarray, str, str]]:
    """By name, a number for each direction from the tokens of one end, what it is, and its unit."""
    parts, counts = vocabulary.part_of_speech.values, vocabulary.occurrences.values
    seen = np.full(len(counts), np.nan)
    seen[counts > 0] = np.log(counts[counts > 0])
    return {
        "fragments": (
            _row_means(vocabulary.fragment.values[tokens]),
            "share of tokens that continue a word",
            "1",
        ),
        "purity": (
            np.array([share_of_commonest(parts[row]) for row in tokens]),
            "share of the commonest part of speech among known tokens",
            "1",
        ),
        "frequency": (_row_means(seen[tokens]), "mean log count of tokens that occur in the texts", "nat"),
    }


def _row_means(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    n = known.sum(axis=1)
    return np.where(n >= 3, np.where(known, values, 0).sum(axis=1) / np.maximum(n, 1), np.nan)


def _nanmean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    return rank_correlation(a[known], b[known]) if known.sum() >= 10 else float("nan")


def removals(edits: xr.Dataset, settings: Settings) -> xr.Dataset:
    """How many times as far a removal moves a direction's own tokens as others; texts are the units."""
    if not edits.sizes.get("edit") or not edits.sizes.get("edit_text"):
        return xr.Dataset()
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)
    logs = {}
    for name, below in (("edit_selectivity", "unrelated_change"), ("edit_over_control", "control_change")):
        above, under = edits.related_change.values, edits[below].values
        known = (above > 0) & (under > 0)
        logs[name] = np.where(known, np.log(np.where(known, above, 1) / np.where(known, under, 1)), np.nan)
    what = {
        "edit_selectivity": "log ratio of the change of its own tokens' logits to that of others",
        "edit_over_control": "log ratio of the change of its own tokens' logits to that by a rotation",
    }
    variables: dict[str, Any] = {}
    for name, values in logs.items():
        variables |= interval_variables(name, mean(values.T), "edit", what[name], "nat")
    p = [_t_test(row) for row in logs["edit_selectivity"]]
    variables["edit_p"] = quantity(holm(p), "edit", "p of no difference over texts, by Holm over removals")
    names = [
        f"layer {layer} {'MLP' if matrix == 'mlp' else matrix}, direction {rank}"
        for layer, matrix, rank in zip(
            edits.edit_layer.values,
            edits.edit_matrix.values,
            edits.edit_rank.values,
            strict=True,
        )
    ]
    return edits.assign(variables).assign_coords(edit=text_coordinate(names, "edit", "removed direction"))


def _t_test(values: np.ndarray) -> float:
    """Two-sided p of a mean of 0, by Student's t; NaN with fewer than two values."""
    from scipy.special import stdtr

    known = values[np.isfinite(values)]
    if len(known) < 2 or known.std() == 0:
        return float("nan")
    t = known.mean() / (known.std(ddof=1) / np.sqrt(len(known)))
    return float(2 * stdtr(len(known) - 1, -abs(t)))


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
