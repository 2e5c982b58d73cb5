"""Which tokens a head's query-key form joins: pairs, and what the two of a pair have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import number_coordinate
from layerscope.experiments.weight_directions.measure.lexicon import Lexicon
from layerscope.experiments.weight_directions.measure.matrices import query_key
from layerscope.experiments.weight_directions.settings import SINGULAR
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.projections import Projections

LIKENESS = {"same_token": "the same letters", "same_part_of_speech": "the same part of speech"}


def joined_pairs(lexicon: Lexicon, projections: Projections, directions: xr.Dataset) -> xr.Dataset:
    """The pairs of tokens (i, j) with the largest e_i W_Q W_K\u1d40 e_j\u1d40 of every head.

    Looked for among the tokens at both ends of what the head asks and answers, where a form of low rank
    has its largest entries; all pairs of a vocabulary would be too many.
    """
    heads = projections.heads
    wanted = {"QK asks", "QK answers"} <= set(lexicon.settings.kinds) and lexicon.settings.pairs
    product = query_key(heads, lexicon.settings) if heads is not None and wanted else None
    found: list[tuple[int, int, int, float, float, float]] = []
    if product is not None:
        for head in range(len(product[0])):
            asking, answering = (_at_ends(directions, kind, head) for kind in ("QK asks", "QK answers"))
            if asking.size and answering.size:
                found += _of_head(head, asking, answering, product, lexicon)
    columns = list(zip(*found, strict=True)) if found else [()] * 6

    def column(place: int, kind: type, what: str) -> xr.Variable:
        return quantity(np.array(columns[place], dtype=kind), "pair", what)

    return xr.Dataset(
        {
            "pair_asks": column(1, np.int32, "id of the token that asks"),
            "pair_answers": column(2, np.int32, "id of the token that answers"),
            "pair_score": column(
                3, np.float64, "query-key product, in standard deviations over the tokens compared"
            ),
            "pair_same_token": column(
                4, np.float64, "share of all compared pairs that are of the same letters"
            ),
            "pair_same_part_of_speech": column(
                5, np.float64, "share of all compared pairs that are of the same part of speech"
            ),
        },
        coords={
            "pair_layer": number_coordinate([projections.layer] * len(found), "pair", "layer of the head"),
            "pair_head": number_coordinate(np.array(columns[0], dtype=np.int64), "pair", "head"),
        },
    )


def _at_ends(directions: xr.Dataset, kind: str, head: int) -> np.ndarray:
    here = (
        (directions.direction_kind.values == kind)
        & (directions.direction_matrix.values == f"head {head}")
        & (directions.origin.values == SINGULAR)
    )
    return np.unique(directions.top_token.values[here])


def _of_head(
    head: int,
    asking: np.ndarray,
    answering: np.ndarray,
    product: tuple[Any, Any],
    lexicon: Lexicon,
) -> list[tuple[int, int, int, float, float, float]]:
    query, key = product
    rows = lexicon.rows("embedding")
    asks, answers = (
        _in_stream(rows, ids) @ matrix[head] for ids, matrix in ((asking, query), (answering, key))
    )
    scores = (asks @ answers.T).double().cpu().numpy()
    by_chance = [
        share_of_known(
            alike(
                labels_of(lexicon.vocabulary, name, asking)[:, None],
                labels_of(lexicon.vocabulary, name, answering)[None],
            )
        )
        for name in LIKENESS
    ]
    order = np.argsort(-scores, axis=None, kind="stable")[: lexicon.settings.pairs]
    standard = (scores - scores.mean()) / max(float(scores.std()), 1e-30)
    return [
        (head, int(asking[i]), int(answering[j]), float(standard[i, j]), by_chance[0], by_chance[1])
        for i, j in zip(*np.unravel_index(order, scores.shape), strict=True)
    ]


def _in_stream(rows: Any, ids: np.ndarray) -> Any:
    vectors = rows.rows[ids.tolist()].float()
    return vectors if rows.into is None else vectors @ rows.into.to(vectors).T


def labels_of(vocabulary: xr.Dataset, name: str, ids: np.ndarray) -> np.ndarray:
    """What tokens are compared by: their letters, or their part of speech; empty where unknown."""
    if name == "same_part_of_speech":
        return np.asarray(vocabulary.part_of_speech.values[ids])
    # As stored: an array of text would cut a NUL at the end off.
    return np.array([str(text).strip().lower() for text in vocabulary.token_text.values[ids]])


def share_of_known(values: np.ndarray) -> float:
    """Mean of what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 where both are known and equal, 0 where they differ, NaN where one is unknown."""
    return np.where((a != "") & (b != ""), a == b, np.nan)
