"""The contexts of one key taken apart: tokens replaced, and what the key's value makes of the next token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from layerscope import runs
from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.experiments._trigger_census import two_sided
from layerscope.experiments._trigger_search import OPERATIONS
from layerscope.experiments._trigger_settings import Settings
from layerscope.maths.shallowness import by_frequency, frequency_percentile
from layerscope.results.escaping import stored
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.runs.tuned_lens import TunedLens

_FOLLOWING = 4


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
                size=1 + edited * (int(layer) + 1),
                layer=int(layer),
                contexts=contexts,
                tokens_per_pass=inputs.tokens_per_pass,
                tuned=runs.lens_digest(settings.tuned) if settings.tuned else "",
            )


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


def measure_contexts(
    model: LayeredModel, item: ContextsItem, settings: Settings, earlier: Earlier
) -> xr.Dataset:
    """Activations with tokens replaced, and how the key's value ranks the token that follows."""
    contexts, lengths = item.contexts, (0, *settings.kept_tokens)
    edits = _activations(model, item, lengths, settings)
    tops, ranks, percentiles = _readings(model, item, settings, earlier["search"].counts.values, None)
    tuned = _by_tuned_lens(model, item, settings, earlier["search"].counts.values)
    per_context = "context"
    return xr.Dataset(
        {
            "activation": quantity(_column(contexts, "value"), per_context, "activation, towards the tail"),
            "next_id": quantity(_column(contexts, "next_id"), per_context, "id of the token that follows"),
            "activation_in_window": quantity(edits[:, 0], per_context, "activation in the window alone"),
            "activation_with_last_replaced": quantity(
                edits[:, 1], per_context, "activation with the last token replaced"
            ),
            "activation_with_kept": quantity(
                edits[:, 2:], "context kept_tokens", "activation with all but the last tokens replaced"
            ),
            "value_top": quantity(tops, per_context, "id of the token that the key's value raises most"),
            "value_top_text": quantity(
                np.array([stored(_text(model, int(top))) for top in tops]), per_context, "what it reads as"
            ),
            "next_rank": quantity(ranks, per_context, "rank of the next token by the key's value, 1 first"),
            "next_percentile": quantity(
                percentiles, per_context, "share of tokens of like frequency that the key's value puts lower"
            ),
            **tuned,
            "context_text": quantity(
                np.array([json.dumps(context.texts) for context in contexts]),
                per_context,
                "the context's tokens, as a JSON list",
            ),
            "context_length": quantity(
                np.array([len(context.window) for context in contexts]),
                per_context,
                "tokens up to the one that excites",
            ),
        },
        coords={
            "context": text_coordinate(
                [f"{c.unit} #{c.rank + 1}" for c in contexts], "context", "context of a key"
            ),
            "context_key": xr.Variable("context", np.array([c.unit for c in contexts]), {"long_name": "key"}),
            "context_rank": number_coordinate([c.rank for c in contexts], "context", "rank, 0 first"),
            "context_passage": text_coordinate([c.passage for c in contexts], "context", "passage"),
            "context_position": number_coordinate([c.position for c in contexts], "context", "position"),
            "kept_tokens": number_coordinate(lengths, "kept_tokens", "last tokens that are kept"),
        },
    )


def _column(contexts: Sequence[Context], name: str) -> np.ndarray:
    return np.array([getattr(context, name) for context in contexts])


def _activations(
    model: LayeredModel, item: ContextsItem, lengths: Sequence[int], settings: Settings
) -> np.ndarray:
    """[context edit]: the window alone, its last token replaced, all but its last tokens replaced."""
    found = np.full((len(item.contexts), 2 + len(lengths)), np.nan, dtype=np.float32)
    rows: dict[int, list[tuple[int, int, tuple[int, ...]]]] = {}
    for place, context in enumerate(item.contexts):
        for edit, ids in enumerate(_edited(context, lengths)):
            if ids:
                rows.setdefault(len(ids), []).append((place, edit, ids))
    for length, some in rows.items():
        at_once = max(1, item.tokens_per_pass // length)
        for start in range(0, len(some), at_once):
            batch = some[start : start + at_once]
            keys = [item.contexts[place].key for place, _, _ in batch]
            values = _at_the_end(model, item.layer, keys, [ids for _, _, ids in batch], settings)
            for (place, edit, _), value in zip(batch, values, strict=True):
                found[place, edit] = -value if item.contexts[place].unit.endswith("negative") else value
    return found


def _edited(context: Context, lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The texts to run, BOS in front; nothing where there is nothing to replace."""
    if not context.other:
        return
    bos = () if context.bos is None else (context.bos,)
    window, other = context.window, context.other
    yield (*bos, *window)
    yield (*bos, *window[:-1], other[-1])
    for kept in lengths:
        cut = len(window) - kept
        yield (*bos, *other[:cut], *window[cut:]) if cut > 0 else ()


def _at_the_end(
    model: LayeredModel,
    layer: int,
    keys: Sequence[int],
    rows: Sequence[tuple[int, ...]],
    settings: Settings,
) -> np.ndarray:
    """The activation of each row's key at its last token."""
    import torch

    seen: list[Any] = []
    distinct = sorted(set(keys))
    each, columns = list(range(len(rows))), [distinct.index(key) for key in keys]

    def see(activations: Any) -> None:
        seen.append(activations.of(distinct)[each, -1, columns].float().cpu().numpy())

    share = settings.routing_share
    runs.show_key_activations(model, torch.tensor(rows), {layer: see}, routing_share=share)
    return np.asarray(seen[0])


def _by_tuned_lens(
    model: LayeredModel, item: ContextsItem, settings: Settings, counts: np.ndarray
) -> dict[str, xr.Variable]:
    """What the values say once a tuned lens has translated them from the depth after their block."""
    if not settings.tuned:
        return {}
    shape = {"n_layers": model.n_layers, "width": model.facts.width}
    lens = runs.read_tuned_lens(settings.tuned, **shape, digest=item.tuned)
    tops, _, percentiles = _readings(model, item, settings, counts, lens)
    return {
        "value_top_tuned": quantity(
            tops, "context", "id of the token that the value raises most, tuned lens"
        ),
        "next_percentile_tuned": quantity(
            percentiles, "context", "share of tokens of like frequency that the value puts lower, tuned lens"
        ),
    }


def _readings(
    model: LayeredModel, item: ContextsItem, settings: Settings, counts: np.ndarray, lens: TunedLens | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By the key's value through final norm and unembedding: its top token, the next token's rank and percentile."""
    n = len(item.contexts)
    tops, ranks, percentiles = np.full(n, -1), np.full(n, np.nan), np.full(n, np.nan)
    if "unembed" in model.refused:
        return tops, ranks, percentiles
    order = by_frequency(counts)
    units = {context.unit: context.key for context in item.contexts}
    scores = {unit: _scores(model, item.layer, unit, key, lens) for unit, key in units.items()}
    for place, context in enumerate(item.contexts):
        score = scores[context.unit]
        if not np.ptp(score):
            continue  # a value of nothing raises no token
        tops[place] = int(score.argmax())
        if 0 <= context.next_id < len(score):
            ranks[place] = 1 + int((score > score[context.next_id]).sum())
            percentiles[place] = frequency_percentile(
                score, context.next_id, order, neighbours=settings.neighbours
            )
    return tops, ranks, percentiles


def _scores(model: LayeredModel, layer: int, unit: str, key: int, lens: TunedLens | None) -> np.ndarray:
    """The logits of a key's value, or of its opposite for the negative tail."""
    from layerscope.models.mlp_keys import mlp_keys

    value = mlp_keys(model)[layer].values([key])
    value = value if lens is None else lens.translate_change(layer + 1, value)
    dtype = next(model.module.parameters()).dtype
    logits = model.unembed((-value if unit.endswith("negative") else value).to(model.device, dtype))
    return np.asarray(logits[0].float().cpu().numpy()[: model.facts.vocabulary])


def _text(model: LayeredModel, token: int) -> str:
    return "" if token < 0 else str(model.tokenizer.decode([token]))
