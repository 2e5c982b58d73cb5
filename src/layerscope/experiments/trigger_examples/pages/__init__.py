"""The contexts of every key as pages for reading, one page for each layer."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from layerscope.results.escaping import restored, stored, visible
from layerscope.results.pages import Chapter, Excerpt, Page, Piece

_INTRODUCTION = (
    "The contexts that excite each key most, highest first: in front the activation, outlined the token at which it "
    "is reached, shaded how far the key is excited at the tokens before it (orange towards this tail, blue away from "
    "it). The few tokens after it are there for reading; the key has not seen them."
)


def pages(result: xr.Dataset) -> dict[str, Page]:
    """One page for each layer that has keys."""
    found = {}
    for layer in np.unique(result.key_layer.values):
        rows = _most_alike_first(result, np.flatnonzero(result.key_layer.values == layer))
        chapters = tuple(_chapter(result, int(row)) for row in rows)
        found[f"layer {layer}: what excites its keys"] = Page(chapters, _INTRODUCTION, int(layer))
    return found


def _most_alike_first(result: xr.Dataset, rows: np.ndarray) -> np.ndarray:
    """Keys in the order in which a reader sees most: those whose contexts end alike first, unknown ones last."""
    alike = np.nan_to_num(result.shared_last_token.values[rows], nan=-1.0)
    return rows[np.argsort(-alike, kind="stable")]


def contexts_of(result: xr.Dataset, key: str) -> xr.Dataset:
    """The contexts of one key, in order of rank."""
    return result.isel(context=np.flatnonzero(result.context_key.values == key))


def _chapter(result: xr.Dataset, row: int) -> Chapter:
    here = result.isel(key=row)
    name = str(here.key.values)
    mine = contexts_of(result, name)
    excerpts = tuple(_excerpt(result, mine, row, place) for place in range(mine.sizes["context"]))
    heading = _called(name) + ", lowest activations" * (int(here.key_tail) < 0)
    return Chapter(heading, excerpts, note=_note(here), name=name)


def _called(name: str) -> str:
    """A key's name as the field writes it: "L3 MLP key 40", "L0 expert 1 key 3"."""
    layer, *expert, key = name.split()[0].split(":")
    inside = "MLP" if not expert else "shared expert" if expert == ["shared"] else f"expert {expert[0]}"
    return f"L{layer} {inside} key {key}"


def _note(here: xr.Dataset) -> str:
    said = [f"{int(here.n_contexts)} contexts"]
    for text, value in (
        ("pairs that end in the same token {:.0%}", float(here.shared_last_token)),
        ("in the same two {:.0%}", float(here.shared_bigram)),
        ("kept with another last token {:z.0%}", float(here.kept_without_last)),
    ):
        if np.isfinite(value):
            said.append(text.format(value).replace("-", "−"))
    radius = float(here.context_radius)
    if not np.isnan(radius):
        largest = int(here.kept_tokens.values[-1])
        said.append(_radius(radius, largest))
    if str(here.value_top_text.values):
        said.append(f"its value raises “{visible(restored(str(here.value_top_text.values)))}” most")
    return "; ".join(said) + "."


def _radius(radius: float, largest: int) -> str:
    if np.isinf(radius):
        return f"radius more than {largest} tokens"
    return f"radius {radius:g} token{'' if radius == 1 else 's'}"


def _excerpt(result: xr.Dataset, mine: xr.Dataset, row: int, place: int) -> Excerpt:
    texts = json.loads(str(mine.context_text.values[place]))
    length, rank = int(mine.context_length.values[place]), int(mine.context_rank.values[place])
    along = result.context_along.values[row, rank]
    along = along[len(along) - length :]
    top = float(mine.activation.values[place])
    shades = np.clip(np.nan_to_num(along / top if top else along), -1, 1)
    pieces = tuple(
        Piece(stored(text), shade=float(shades[i]) if i < length else 0.0, marked=i == length - 1)
        for i, text in enumerate(texts)
    )
    sign = -1 if int(result.key_tail.values[row]) < 0 else 1
    where = f"{mine.context_passage.values[place]}, token {int(mine.context_position.values[place])}"
    return Excerpt(pieces, value=_three_digits(sign * top), source=where)


def _three_digits(value: float) -> str:
    """Enough to tell the contexts of a key apart, whose activations may all be small."""
    said = f"{value:.2f}" if abs(value) >= 1 else f"{value:#.3g}"
    return said.replace("-", "−")
