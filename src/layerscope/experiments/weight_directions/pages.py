"""Directions for reading: the tokens at both ends, a page for each layer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.evidence.wording import p_in_words
from layerscope.experiments.weight_directions.conclude.removals import direction_in_words, matrix_in_words
from layerscope.experiments.weight_directions.settings import OWN, SIGNS, SINGULAR, kind_in_words
from layerscope.results.pages import Chapter, Excerpt, Page, Piece
from layerscope.results.schema import read_json

_SHOWN = 6
_PAIRS = {"OV reads": "OV writes", "QK asks": "QK answers"}
_GAP = Piece("   ")
_SIGNS = tuple(sign.replace("-", "−") for sign in SIGNS)


def pages(result: xr.Dataset) -> dict[str, Page]:
    """The tokens at both ends of the leading directions, a page for each layer; and directions close to the words."""
    texts = dict(zip(result.entry.values.tolist(), result.token_text.values.tolist(), strict=True))
    introduction = (
        "Tokens at both ends of a direction, strongest first, the most coherent directions in front; darker where they "
        f"are more coherent ({read_json(result, 'rate_by')}), marked where the direction counts as coherent. The ends "
        "of what a head reads and writes, or its query and key sides, belong together: + with +, − with −."
    )
    found = {}
    for layer in result.layer.values:
        found_here = sorted(_chapters(result, int(layer), texts), key=lambda one: -one[0])
        chapters = tuple(chapter for _, chapter in found_here)
        if chapters:
            found[f"directions of layer {layer}"] = Page(chapters, introduction, int(layer))
    if "answer" in result and result.sizes.get("found"):
        found["directions closest to the words"] = Page(
            (_search(result, texts),), "Ordered by cosine with the words."
        )
    return found


def _chapters(result: xr.Dataset, layer: int, texts: dict[int, str]) -> Iterator[tuple[float, Chapter]]:
    """A chapter for each matrix with the coherence of its best end, by which a reader wants them."""
    coherence = np.nan_to_num(result.coherence.values[:, :, _rated(result)], nan=-1.0)
    rows = np.flatnonzero(
        (result.direction_layer.values == layer)
        & (result.origin.values == SINGULAR)
        & (result["rank"].values < _SHOWN)
    )
    kinds = result.direction_kind.values[rows]
    seconds = set(_PAIRS.values()) if set(_PAIRS) & set(kinds.tolist()) else set()
    for kind in dict.fromkeys(kinds.tolist()):
        if kind in seconds and next(a for a, b in _PAIRS.items() if b == kind) in kinds:
            continue
        together = [kind, _PAIRS.get(kind, kind)]
        here = rows[np.isin(kinds, together)]
        for matrix in dict.fromkeys(result.direction_matrix.values[here].tolist()):
            of_matrix = here[result.direction_matrix.values[here] == matrix]
            ranks = result["rank"].values[of_matrix]
            few = 2 if str(matrix) not in ("mlp", "shared") else _SHOWN
            ends = {
                (rank, sign): float(coherence[of_matrix[ranks == rank], sign].max())
                for rank in np.unique(ranks)[:few]
                for sign in range(2)
            }
            excerpts = tuple(
                excerpt
                for rank, sign in sorted(ends, key=lambda end: -ends[end])
                for excerpt in _excerpts(result, of_matrix[ranks == rank], sign, texts)
            )
            where = matrix_in_words(layer, str(matrix))
            said = (kind_in_words(one).removeprefix("MLP ") for one in dict.fromkeys(together))
            heading = f"{where}: {' and '.join(said)}"
            more = [*_subspaces(result, layer, together, str(matrix), texts)]
            if kind == "QK asks":
                more += _pairs(result, layer, str(matrix), texts)
            yield max(ends.values()), Chapter(heading, (*excerpts, *more))


def _rated(result: xr.Dataset) -> int:
    """The rater whose coherence is shown: the headline's, or the own embedding where that gives none."""
    rater = str(read_json(result, "rate_by"))
    rated = rater if rater in result.rater.values and rater != "language model" else OWN
    return result.rater.values.tolist().index(rated)


def _excerpts(result: xr.Dataset, rows: np.ndarray, sign: int, texts: dict[int, str]) -> Iterator[Excerpt]:
    rater, column = str(read_json(result, "rate_by")), _rated(result)
    order = [*_PAIRS, *_PAIRS.values()]  # what is read or asked stands before what is written or answered
    kinds = result.direction_kind.values[rows].tolist()
    for row in rows[np.argsort([order.index(kind) if kind in order else 0 for kind in kinds], kind="stable")]:
        coherence = float(result.coherence.values[row, sign, column])
        shade = 0.0 if np.isnan(coherence) else float(np.clip(coherence, -1, 1))
        interpretable = result.interpretable.values[row, result.rater.values.tolist().index(rater)]
        mark = "; the direction counts as coherent" if interpretable == 1 else ""
        value = f"{kind_in_words(result.direction_kind.values[row])} {int(result['rank'].values[row])}{_SIGNS[sign]}"
        ids = result.top_token.values[row, sign]
        said = "unknown" if np.isnan(coherence) else f"{round(coherence, 2) + 0.0:.2f}".replace("-", "−")
        yield Excerpt(_pieces(ids, texts, shade), value, f"coherence {said}{mark}")


def _subspaces(
    result: xr.Dataset, layer: int, kinds: list[str], matrix: str, texts: dict[int, str]
) -> Iterator[Excerpt]:
    if "together_layer" not in result.coords:
        return
    here = np.flatnonzero(
        (result.together_layer.values == layer)
        & np.isin(result.together_kind.values, kinds)
        & (result.together_matrix.values == matrix)
        & (result.together_first.values < _SHOWN)
    )
    for row in here[:2]:
        first, size = int(result.together_first.values[row]), int(result.together_size.values[row])
        value = f"{kind_in_words(result.together_kind.values[row])} {first} to {first + size - 1}"
        yield Excerpt(
            _pieces(result.together_token.values[row], texts, 0.0),
            value,
            "near-equal singular values, defined only together",
        )


def _pairs(result: xr.Dataset, layer: int, matrix: str, texts: dict[int, str]) -> Iterator[Excerpt]:
    """The pairs of tokens that a head joins most, in one line."""
    if "pair_head" not in result.coords:
        return
    here = np.flatnonzero(
        (result.pair_layer.values == layer) & (result.pair_head.values == int(matrix.removeprefix("head ")))
    )
    pieces: list[Piece] = []
    for row in here[:_SHOWN]:
        asks, answers = (
            texts.get(int(result[name].values[row]), "") for name in ("pair_asks", "pair_answers")
        )
        pieces += [Piece(asks, 0.3), Piece(" → "), Piece(answers, -0.3), _GAP]
    if pieces:
        yield Excerpt(tuple(pieces[:-1]), "pairs: query → key", "largest query-key products")


def _search(result: xr.Dataset, texts: dict[int, str]) -> Chapter:
    excerpts = []
    for place in range(min(20, result.sizes["found"])):
        here = result.isel(found=place)
        row, cosine = int(here.found), float(here.answer)
        where = direction_in_words(int(here.found_rank), int(here.found_layer), str(here.found_matrix.item()))
        source = f"{where} ({kind_in_words(here.found_kind.item())}); {p_in_words(float(here.answer_p))}"
        ids = result.top_token.values[row, 0 if cosine > 0 else 1]
        excerpts.append(Excerpt(_pieces(ids, texts, abs(cosine)), f"{cosine:+.2f}".replace("-", "−"), source))
    return Chapter(str(read_json(result, "search")), tuple(excerpts))


def _pieces(ids: np.ndarray, texts: dict[int, str], shade: float) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    for token in ids.tolist():
        pieces += [Piece(texts.get(int(token), ""), shade), _GAP]
    return tuple(pieces[:-1])
