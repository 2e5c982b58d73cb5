"""The contexts of one key taken apart: tokens replaced, and what the key's value makes of the next token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.experiments.trigger_examples.items.contexts import Context, ContextsItem
from layerscope.experiments.trigger_examples.settings import Settings
from layerscope.maths.shallowness import by_frequency, frequency_percentile
from layerscope.results.escaping import stored
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.runs.tuned_lens import TunedLens


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
