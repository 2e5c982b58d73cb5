"""Rows and columns of attention of one text: what one query looks at, and how one key is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from layerscope.models.attention import Attended, AttentionCall, replaced, watched
from layerscope.models.layered import LayeredModel
from layerscope.runs.attention_statistics import attended, attention_layers, visible_keys
from layerscope.runs.value_lengths import ValueLengths

_QUERIES_AT_ONCE = 128


@torch.no_grad()
def attention_of_last(
    model: LayeredModel, ids: Sequence[Sequence[int]], lengths: ValueLengths
) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """What the last token of each text looks at.

    Args:
        model: the model.
        ids: texts of one length.
        lengths: of what heads write.

    Returns:
        Shares, and shares times lengths over their sum, both [text layer head token] in float32, NaN where
        a layer has no such head; and the logits behind the last token [text vocabulary].

    Raises:
        LayerscopeError: attention cannot be watched on this model.
    """
    rows: dict[int, tuple[Tensor, Tensor]] = {}

    def watch_of(layer: int) -> Callable[[Attended], None]:
        def watch(call: Attended) -> None:
            shares = call.pattern[:, :, -1]
            written = shares * lengths.of(layer, call.v, call.q.shape[1])
            rows[layer] = shares.clone(), written / written.sum(-1, keepdim=True)

        return watch

    layers = attention_layers(model)
    watches = {_module(model, layer): watch_of(layer) for layer in layers}
    with watched(model.module, watches):
        logits = model.logits(torch.tensor([list(row) for row in ids]), last=True)[:, -1]
    parts = [{layer: rows[layer][which] for layer in layers} for which in (0, 1)]
    return _by_layer(parts[0], model), _by_layer(parts[1], model), logits


@torch.no_grad()
def attention_to_first(model: LayeredModel, ids: Sequence[int]) -> np.ndarray:
    """The share that every token of a text gives the first one [layer head token], float32.

    Raises:
        LayerscopeError: attention cannot be watched on this model.
    """
    columns: dict[int, Tensor] = {}

    def replacement(layer: int) -> Callable[[AttentionCall], Tensor]:
        def attend(call: AttentionCall) -> Tensor:
            parts, head_out = [], []
            for start in range(0, call.q.shape[2], _QUERIES_AT_ONCE):
                pattern, _, out = attended(call, start, min(start + _QUERIES_AT_ONCE, call.q.shape[2]))
                parts.append(pattern[0, :, :, 0].clone())
                head_out.append(out)
            columns[layer] = torch.cat(parts, dim=-1)[None]
            return torch.cat(head_out, dim=2)

        return attend

    layers = attention_layers(model)
    with replaced(model.module, {_module(model, layer): replacement(layer) for layer in layers}):
        model.logits(torch.tensor([list(ids)]), last=True)
    return _by_layer(columns, model)[0]


@torch.no_grad()
def attention_of_queries(
    model: LayeredModel, ids: Sequence[Sequence[int]], queries: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """What some tokens look at, and what they could.

    Args:
        model: the model.
        ids: texts of one length.
        queries: tokens, each as text and position.

    Returns:
        Shares [query layer head token] in float32, NaN where a layer has no such head; and whether a layer lets
        the query see the token at all, by any head [query layer token], False throughout where it does not attend.

    Raises:
        LayerscopeError: attention cannot be watched on this model.
    """
    rows: dict[int, Tensor] = {}
    layers = attention_layers(model)
    texts, positions = [text for text, _ in queries], [position for _, position in queries]
    visible = np.zeros((len(queries), model.n_layers, len(ids[0])), dtype=bool)

    def replacement(layer: int) -> Callable[[AttentionCall], Tensor]:
        def attend(call: AttentionCall) -> Tensor:
            tokens, found, head_out = call.q.shape[2], {}, []
            for start in range(0, tokens, _QUERIES_AT_ONCE):
                stop = min(start + _QUERIES_AT_ONCE, tokens)
                pattern, _, out = attended(call, start, stop)
                for place, (text, position) in enumerate(queries):
                    if start <= position < stop:
                        row = pattern[text, :, position - start]
                        found[place] = nn.functional.pad(row, (0, tokens - stop))
                head_out.append(out)
            rows[layer] = torch.stack([found[place] for place in range(len(queries))])
            seen = visible_keys(call).any(1)  # by some head
            visible[:, layer] = seen.expand(len(ids), -1, -1)[texts, positions].cpu().numpy()
            return torch.cat(head_out, dim=2)

        return attend

    with replaced(model.module, {_module(model, layer): replacement(layer) for layer in layers}):
        model.logits(torch.tensor([list(row) for row in ids]), last=True)
    return _by_layer(rows, model), visible


def _module(model: LayeredModel, layer: int) -> torch.nn.Module:
    module = model.attention_modules[layer]
    assert module is not None
    return module


def _by_layer(values: dict[int, Tensor], model: LayeredModel) -> np.ndarray:
    """[text layer head token] from each layer's [text head token]; NaN where there is none."""
    heads = max((value.shape[1] for value in values.values()), default=1)
    some = next(iter(values.values()))
    whole = np.full((some.shape[0], model.n_layers, heads, some.shape[-1]), np.nan, dtype=np.float32)
    for layer, value in values.items():
        whole[:, layer, : value.shape[1]] = value.float().cpu().numpy()
    return whole
