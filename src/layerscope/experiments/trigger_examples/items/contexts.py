"""The contexts of some keys of one layer, with what is put in place of their tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from layerscope import runs
from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.experiments.trigger_examples.items import OPERATIONS
from layerscope.experiments.trigger_examples.items.units import two_sided
from layerscope.experiments.trigger_examples.settings import Settings

_FOLLOWING = 4
_RANKED = 2  # ranks among tokens of like frequency take as long as the product with the vocabulary


class Context(BaseModel):
    """One context of a key.

    Attributes:
        unit: name of the key and tail.
        key: its number in the layer.
        rank: among the unit's contexts.
        value: activation in the whole passage, towards the tail.
        passage: its name.
        position: of the token that excites.
        window: ids of the last tokens up to that one, without BOS.
        texts: what these and the next few tokens read as.
        next_id: the token after it; -1 where the passage ends.
        other: ids of another passage's tokens, as many as the window has; empty where none is edited.
        bos: id that stands in front; None where passages have no BOS.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    key: int
    rank: int
    value: float
    passage: str
    position: int
    window: tuple[int, ...]
    texts: tuple[str, ...]
    next_id: int
    other: tuple[int, ...]
    bos: int | None


class ContextsItem(WorkItem):
    """The contexts of some keys of one layer, of both tails."""

    layer: int
    contexts: tuple[Context, ...]
    tokens_per_pass: int
    tuned: str = Field("", description="sha256 of the tuned lens")


def context_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[ContextsItem]:
    """As many keys of one layer in an item as take about half a minute on one core."""
    search, census = _Found(earlier["search"]), earlier["census"]
    rows_of_edits = settings.edited * (3 + len(settings.kept_tokens))
    operations = 2 * inputs.facts.n_parameters * rows_of_edits * (settings.window + 1)
    at_once = max(1, int(OPERATIONS / max(1, operations)))
    for layer in np.unique(search.layer):
        keys = np.unique(search.key[search.layer == layer])
        for start in range(0, len(keys), at_once):
            some = keys[start : start + at_once]
            rows = np.flatnonzero((search.layer == layer) & np.isin(search.key, some))
            contexts = tuple(
                context
                for row in rows
                for context in _contexts(
                    inputs, settings, search, int(row), _is_edited(search, census, int(row))
                )
            )
            edited = sum(bool(context.other) for context in contexts)
            yield ContextsItem(
                name=f"layer {layer}, keys {some[0]} to {some[-1]}",
                size=_size(inputs, settings, int(layer), len(contexts), edited),
                layer=int(layer),
                contexts=contexts,
                tokens_per_pass=inputs.tokens_per_pass,
                tuned=runs.lens_digest(settings.tuned) if settings.tuned else "",
            )


def expected_contexts(inputs: Inputs, settings: Settings) -> Iterator[float]:
    """Sizes before the search: one item a layer, and every tail of a key with all of its contexts."""
    units = len(settings.keys) / inputs.facts.n_layers or settings.keys_per_layer or inputs.facts.width
    tails = 2  # of a gated MLP, which most are
    for layer in range(inputs.facts.n_layers):
        contexts = round(tails * units * settings.top)
        yield _size(inputs, settings, layer, contexts, round(tails * units * settings.edited))


def _size(inputs: Inputs, settings: Settings, layer: int, contexts: int, edited: int) -> float:
    """Rows of edited windows through the layers up to this one, and a ranking of the vocabulary for each context."""
    tokens = edited * (3 + len(settings.kept_tokens)) * (settings.window + 1)
    return inputs.facts.operations(tokens, layers=layer + 1, logits=_RANKED * contexts)


class _Found:
    """The search's result as plain arrays."""

    def __init__(self, search: xr.Dataset) -> None:
        self.names = [str(name) for name in search.key.values]
        self.layer, self.key = search.key_layer.values, search.key_index.values
        self.tail = search.key_tail.values
        self.value, self.text = search.value.values, search.text.values
        self.position = search.position_in_text.values
        there = search.random_text.values >= 0
        self.random = list(
            zip(
                search.random_text.values[there].tolist(),
                search.random_position.values[there].tolist(),
                strict=True,
            )
        )


def _is_edited(search: _Found, census: xr.Dataset, row: int) -> bool:
    """Negative tails are taken apart where they reach about as far as the positive ones."""
    if search.tail[row] > 0:
        return True
    cell = int(search.layer[row]), int(search.key[row])
    return bool(two_sided(census.highest.values[cell], census.lowest.values[cell]))


def _contexts(
    inputs: Inputs, settings: Settings, search: _Found, row: int, edited: bool
) -> Iterator[Context]:
    there = int((search.text[row] >= 0).sum())
    number = min(settings.edited, there) if edited else 0
    taken_apart = set(np.linspace(0, there - 1, number).round().astype(int).tolist()) if number else set()
    for rank in range(there):
        number_of_passage, position = int(search.text[row, rank]), int(search.position[row, rank])
        passage = inputs.passages[number_of_passage]
        first = max(int(passage.tokens.bos), position + 1 - settings.window)
        window = passage.tokens.ids[first : position + 1]
        after = passage.tokens.ids[position + 1 : position + 2]
        other: tuple[int, ...] = ()
        if rank in taken_apart:
            other = _other(inputs, search, number_of_passage, window, start=7919 * (25 * row + rank))
        yield Context(
            unit=search.names[row],
            key=int(search.key[row]),
            rank=rank,
            value=float(search.value[row, rank]),
            passage=passage.name,
            position=position,
            window=window,
            texts=passage.tokens.texts[first : position + 1 + _FOLLOWING],
            next_id=after[0] if after else -1,
            other=other,
            bos=passage.tokens.ids[0] if passage.tokens.bos else None,
        )


def _other(
    inputs: Inputs, search: _Found, own: int, window: tuple[int, ...], *, start: int
) -> tuple[int, ...]:
    """The end of a random context of another passage, that does not end in the same token; or nothing."""
    count = len(search.random)
    for step in range(count):
        number, position = search.random[(start + step) % count]
        tokens = inputs.passages[number].tokens
        begin = position + 1 - len(window)
        if number != own and begin >= int(tokens.bos) and tokens.ids[position] != window[-1]:
            return tokens.ids[begin : position + 1]
    return ()
