"""Attention statistics, summed inside the attention function, one block of queries at a time.

A pattern of layers x heads x T x T is never held, nor is one layer's: each block of queries is scored
against the keys before its end, reduced to sums, and dropped. Every later query sees no later key, so
what lies beyond a block's end need not be computed at all.

The floor, for one layer of H heads of width d with T tokens and A = H T²/2 pairs that exist: scores and
averages of values take 4 A d operations and the softmax some 10 A, statistics or not. What statistics add
to that, and what it reads of a block of the pattern (4 bytes a pair, in cache):

    α log α                                   2 A          one difference and one product; no logarithm
    entropy, all keys                         A            a sum; without the first token: one column of it
    entropy, by value norm                    6 A          three products with lengths, three sums
    mass, distance, totals of chosen queries  2 A totals   one matrix product
    distance bins beyond 10                   A            two masked sums, at half of the queries
    offsets 0 to 15, previous token, duplicates, induction, dependencies: pairs x definitions x H

No logarithm is taken: log α_ij is the score less its row's log-sum, which the largest entry of each tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from layerscope.maths.arrays import Array
from layerscope.maths.attention import uniform_pattern
from layerscope.maths.similarity import norm
from layerscope.maths.sinks import sink_tokens
from layerscope.models.attention import AttentionCall, Replacement, replaced, seen_keys, without_repeats
from layerscope.models.fused import fused_activations
from layerscope.models.hooks import at_depth
from layerscope.models.layered import LayeredModel
from layerscope.models.lengths import need_prefixes
from layerscope.runs.attention_columns import Asked, Columns, Seen, Sums, Weighted, sums_of, weighted
from layerscope.runs.value_lengths import ValueLengths


@dataclass(frozen=True, eq=False)
class AttentionSums:
    """Sums over queries and keys, the heads of all layers side by side.

    Attributes:
        layers: the layer of each head.
        model: of the model's attention.
        uniform: of attention that falls on all visible keys alike.
        corner: of the model's attention among the first tokens; empty where no mean pattern was given.
        own_mean: of the mean pattern in its place.
        uniform_corner: of uniform attention in its place.
        value_sources: what the lengths of the last definition are lengths of, by layer.
        key_weights: n_j under each definition [text head definition token], the heads of all layers side by side.
    """

    layers: tuple[int, ...]
    model: Sums
    uniform: Sums
    corner: Sums
    own_mean: Sums
    uniform_corner: Sums
    value_sources: dict[int, str]
    key_weights: Tensor


@torch.no_grad()
def attention_sums(
    model: LayeredModel, asked: Asked, lengths: ValueLengths, *, mean_pattern: Array | None = None
) -> AttentionSums:
    """Sums over queries and keys, for every head of every layer that attends.

    Args:
        model: the model.
        asked: texts of one length, and what is summed.
        lengths: of what heads write.
        mean_pattern: [head query key] of the first tokens, over texts, the heads of all layers side by
            side; without it there is no `corner` and no `own_mean`.

    Raises:
        LayerscopeError: attention cannot be watched on this model.
    """
    if mean_pattern is not None:
        need_prefixes(model, asked.ids.shape[1])
    norms: dict[int, Tensor] = {}
    seen: dict[int, Weighted] = {}
    uniform: dict[int, Weighted] = {}
    weights_of: dict[int, Tensor] = {}
    corners: dict[int, tuple[Tensor, Tensor]] = {}
    alike = _Uniform(asked)
    corner = 0 if mean_pattern is None else min(mean_pattern.shape[-1], asked.ids.shape[1])

    def summing(layer: int) -> Callable[[AttentionCall], Tensor]:
        def attend(call: AttentionCall) -> Tensor:
            weights = _key_weights(norms.pop(layer), lengths.of(layer, call.v, call.q.shape[1]))
            here, head_out = Seen(asked, weights), []
            for block in asked.blocks:
                pattern, scores, out = attended(call, block.start, block.stop)
                log_sum = scores.amax(-1, keepdim=True) - pattern.amax(-1, keepdim=True).log()
                here.add(block, pattern, scores.mul_(pattern), log_sum)
                head_out.append(out)
                if block.start == 0 and corner:
                    own = pattern[..., :corner, :corner].clone()
                    corners[layer] = own, alike.pattern(call)[..., :corner, :corner].expand_as(own)
            seen[layer], uniform[layer] = here.weighted(), alike.weighted(call, weights)
            weights_of[layer] = weights
            return torch.cat(head_out, dim=2)

        return attend

    layers = attention_layers(model)
    with at_depth(model, {layer: _keep_norms(norms, layer) for layer in layers}):
        attend_by(model, asked.ids, summing)
    key_weights = torch.cat([weights_of[layer] for layer in layers], dim=1)
    return AttentionSums(
        layers=tuple(layer for layer in layers for _ in range(seen[layer].first.shape[1])),
        model=sums_of(asked, [seen[layer] for layer in layers]),
        uniform=sums_of(asked, [uniform[layer] for layer in layers]),
        **_corner_sums(asked, key_weights, corners, mean_pattern),
        value_sources={layer: lengths.source(layer) for layer in layers},
        key_weights=key_weights,
    )


def _keep_norms(norms: dict[int, Tensor], layer: int) -> Callable[[Tensor], None]:
    def keep(stream: Tensor) -> None:
        norms[layer] = norm(stream)

    return keep


def _corner_sums(
    asked: Asked,
    key_weights: Tensor,
    corners: Mapping[int, tuple[Tensor, Tensor]],
    mean_pattern: Array | None,
) -> dict[str, Sums]:
    """Sums among the first tokens: of the model, of each head's mean pattern over texts, of uniform attention."""
    if mean_pattern is None:
        return {"corner": {}, "own_mean": {}, "uniform_corner": {}}
    here, alike = (torch.cat([corners[layer][which] for layer in sorted(corners)], dim=1) for which in (0, 1))
    texts, _, n, _ = here.shape
    weights = key_weights[..., :n]
    mean = torch.as_tensor(mean_pattern[..., :n, :n]).to(here).expand_as(here)
    cut = asked.first_tokens(n, times=3)
    seen = Seen(cut, weights.repeat(3, 1, 1, 1))
    patterns = torch.cat([here, mean, alike])
    seen.add(cut.blocks[0], patterns, torch.xlogy(patterns, patterns), torch.zeros_like(patterns[..., :1]))
    sums = sums_of(cut, [seen.weighted()])
    found = {
        name: {key: values[:, place * texts : (place + 1) * texts] for key, values in sums.items()}
        for place, name in enumerate(("corner", "own_mean", "uniform_corner"))
    }
    deviation = (here - mean).abs()[..., 1:, :].sum(-2)
    found["corner"]["deviation"] = torch.einsum("thdk,thk->dth", weights, deviation)
    return found


@torch.no_grad()
def first_patterns(model: LayeredModel, ids: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], Tensor]:
    """Patterns of short texts of one length, summed over the texts.

    Returns:
        The layer of each head, and [head query key], the heads of all layers side by side.

    Raises:
        LayerscopeError: attention cannot be watched on this model.
    """
    found: dict[int, Tensor] = {}

    def summing(layer: int) -> Callable[[AttentionCall], Tensor]:
        def attend(call: AttentionCall) -> Tensor:
            pattern, _, head_out = attended(call, 0, call.q.shape[2])
            found[layer] = pattern.sum(0)
            return head_out

        return attend

    layers = attend_by(model, torch.tensor([list(row) for row in ids]), summing)
    whole = torch.cat([found[layer] for layer in layers])
    return tuple(layer for layer in layers for _ in found[layer]), whole


def attend_by(model: LayeredModel, ids: Tensor, computing: Callable[[int], Replacement]) -> list[int]:
    """One pass in which what `computing` gives for a layer computes its attention; the layers that attend.

    Raises:
        LayerscopeError: attention cannot be watched on this model.
    """
    layers = attention_layers(model)
    replacements = {_module(model, layer): computing(layer) for layer in layers}
    with replaced(model.module, replacements), fused_activations(model.module):
        model.logits(ids, last=True)
    return layers


def attention_layers(model: LayeredModel) -> list[int]:
    """Blocks that attend.

    Raises:
        LayerscopeError: attention cannot be watched on this model.
    """
    model.need("pattern")
    return [layer for layer, module in enumerate(model.attention_modules) if module is not None]


def _module(model: LayeredModel, layer: int) -> torch.nn.Module:
    module = model.attention_modules[layer]
    assert module is not None
    return module


def _key_weights(norms: Tensor, lengths: Tensor) -> Tensor:
    """n_j under each definition [text head definition token]."""
    every = torch.ones_like(lengths)
    without_first = every.clone()
    without_first[..., 0] = 0
    without_sinks = (~sink_tokens(norms))[:, None].to(lengths).expand_as(lengths)
    return torch.stack([every, without_first, without_sinks, lengths], dim=2)


def attended(call: AttentionCall, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
    """Shares, masked scores [text head query key] and head_out of queries start .. stop - 1."""
    texts, heads, tokens, _ = call.q.shape
    groups = call.k.shape[1]
    grouped = call.q.reshape(texts, groups, heads // groups, tokens, -1)[..., start:stop, :]
    scores = call.scores(grouped, call.k[:, :, None, :stop])
    if call.mask is not None:
        mask = call.mask_of_groups()[..., start:stop, :stop]
        # Never minus infinity, which times a share of zero would be no number.
        scores = scores + mask.clamp_min(torch.finfo(mask.dtype).min)
    pattern, _sink = call.shares(scores)
    head_out = pattern.to(call.v.dtype) @ call.v[:, :, None, :stop]
    shape = (texts, heads, stop - start)
    return (
        pattern.reshape(*shape, stop),
        scores.float().reshape(*shape, stop),
        head_out.reshape(*shape, -1),
    )


class _Uniform:
    """Uniform attention; what does not depend on the layer is summed once for each mask."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.known: list[tuple[Tensor | None, Tensor, Tensor]] = []

    def weighted(self, call: AttentionCall, weights: Tensor) -> Weighted:
        pattern, columns = self._of(call)
        # All keys of a query have the same share, so sums over keys are one product for all queries.
        shares = pattern.transpose(-1, -2)
        kept = weights @ shares
        logs = torch.xlogy(weights, weights) @ shares + kept * pattern.amax(-1).log()[..., None, :]
        return weighted(self.asked, columns, weights, kept, logs)

    def pattern(self, call: AttentionCall) -> Tensor:
        """The share of each key: [query key] where all texts and heads see alike, else [text head query key]."""
        return self._of(call)[0]

    def _of(self, call: AttentionCall) -> tuple[Tensor, Tensor]:
        """The pattern and its columns [text head sum token]; layers of a kind share one mask."""
        for mask, pattern, columns in self.known:
            if mask is call.mask or (
                mask is not None and call.mask is not None and torch.equal(mask, call.mask)
            ):
                return pattern, columns
        visible = visible_keys(call)
        texts, heads = len(self.asked.ids), visible.shape[1]
        pattern = uniform_pattern(visible)
        sums = Columns(self.asked, heads)
        for block in self.asked.blocks:
            rows = pattern[..., block.start : block.stop, : block.stop]
            sums.add(block, rows.expand(texts, -1, -1, -1))
        if len(pattern) == heads == 1:
            pattern = pattern[0, 0]
        self.known.append((call.mask, pattern, sums.whole()))
        return self.known[-1][1:]


def visible_keys(call: AttentionCall) -> Tensor:
    """Which keys each query may see, by the model's own mask [text or 1, head or 1, query, key]."""
    tokens = call.q.shape[2]
    causal = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device=call.q.device).tril()
    if call.mask is None:
        return causal
    return causal & seen_keys(without_repeats(call.mask)[..., :tokens])
