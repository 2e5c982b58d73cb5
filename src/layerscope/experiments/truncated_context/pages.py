"""The tokens whose states their last tokens preserve least, in their context, to read."""

from __future__ import annotations

import numpy as np
import xarray as xr

from layerscope.results.escaping import restored
from layerscope.results.pages import Chapter, Excerpt, Page, Piece

_LINES = 20


def pages(result: xr.Dataset) -> dict[str, Page]:
    """One page: a chapter after the first block, one at half depth, one at the end."""
    local, last = int(result.attrs["local"]), result.sizes["depth"] - 1
    depths = list(dict.fromkeys([min(1, last), (last + 1) // 2, last]))
    chapters = tuple(_chapter(result, local, depth) for depth in depths)
    introduction = (
        f"The tokens (marked) whose state differs most from what it is with BOS and the last {local} tokens alone. "
        "In front: the similarity; below: where it stands, and its category. After the post, look for punctuation, "
        "common words and pronouns."
    )
    kept = tuple(chapter for chapter in chapters if chapter.excerpts)
    return {"tokens that need more than their last tokens": Page(kept, introduction)} if kept else {}


def _chapter(result: xr.Dataset, local: int, depth: int) -> Chapter:
    values = result.similarity.sel(kept_tokens=local, depth=depth).values
    known = np.isfinite(values)
    order = [place for place in np.argsort(values, kind="stable") if known[place]][:_LINES]
    middle = _two_digits(float(np.median(values[known]))) if known.any() else ""
    return Chapter(
        heading=f"lowest similarity at depth {depth}",
        excerpts=tuple(_excerpt(result, int(place), float(values[place])) for place in order),
        note=f"{len(order)} of {int(known.sum())} tokens; median {middle}"
        if known.any()
        else "no token has so much context",
    )


def _excerpt(result: xr.Dataset, place: int, value: float) -> Excerpt:
    before, token = (str(result[name].values[place]) for name in ("token_before", "token_text"))
    passage, position = str(result.token_passage.values[place]), int(result.position.values[place])
    category = restored(str(result.token_category.values[place]))
    sink = ", sink" if bool(result.sink.values[place]) else ""
    return Excerpt(
        pieces=(Piece(before), Piece(token, marked=True)),
        value=_two_digits(value),
        source=f"{passage}, token {position}: {category}{sink}",
    )


def _two_digits(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
