"""One attention function, registered with transformers, that can be watched and edited.

Families that compute attention through transformers' AttentionInterface call it with queries,
keys and values as they enter the product (after rotary positions and norms), and with the model's
own mask, so windows, chunks and sinks need no rules here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from layerscope.errors import LayerscopeError

NAME = "layerscope"
_WATCH = "_layerscope_watch"
_INSTEAD = "_layerscope_instead"
_HARMLESS = frozenset(
    (
        # The mask holds what these say; fused kernels, which take no mask, read them instead.
        *("sliding_window", "is_causal", "position_ids", "cache_position"),
        # What a model's outputs shall hold, and how it keeps them.
        *("output_attentions", "output_hidden_states", "output_router_logits", "return_dict", "use_cache"),
        *("logits_to_keep", "num_items_in_batch", "deterministic"),
    )
)
"""Arguments that change nothing in what attention computes from queries, keys, values and mask."""


@dataclass(frozen=True)
class Attended:
    """What one attention call saw and gave.

    Attributes:
        q: [batch head token head_width]
        k, v: [batch kv_head token head_width]
        pattern: [batch head token token], each row's share on real keys
        sink: [batch head token], each row's share on a learned sink; zero where there is none
        head_out: [batch head token head_width], values averaged by the pattern, before the output projection
    """

    q: Tensor
    k: Tensor
    v: Tensor
    pattern: Tensor
    sink: Tensor
    head_out: Tensor


Watch = Callable[[Attended], Tensor | None]
"""Sees a call; returns another head_out, or None to leave it."""


@dataclass(frozen=True)
class AttentionCall:
    """One attention call as the family made it, before anything is computed.

    Attributes:
        q: [batch head token head_width]
        k, v: [batch kv_head token head_width]
        mask: added to the scores [batch or 1, head or 1, token, key]; None where nothing is masked
        scale: factor on the products of queries and keys
        softcap: bound on scores, or None
        sinks: one learned logit per head [head], or None
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    scale: float
    softcap: float | None
    sinks: Tensor | None

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Scaled and capped products, before any mask: [... query width] with [... key width]."""
        scores = torch.matmul(q, k.transpose(-1, -2)) * self.scale
        return scores if self.softcap is None else torch.tanh(scores / self.softcap) * self.softcap

    def mask_of_groups(self) -> Tensor:
        """The mask over the keys that are there, beside scores by group [batch kv_head heads_of_group token key].

        Batch and heads are one entry long where the family makes one mask for all.
        """
        assert self.mask is not None
        return by_group(self.mask, self.k.shape[1])[..., : self.k.shape[-2]]

    def shares(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's shares on its keys and on the head's sink, in float32.

        Args:
            scores: masked, [... kv_head heads_of_group query key].

        Returns:
            pattern [... query key] and sink [... query], which together sum to one.
        """
        scores = scores.float()
        if self.sinks is None:
            return scores.softmax(-1), scores.new_zeros(scores.shape[:-1])
        groups, heads = scores.shape[-4:-2]
        column = self.sinks.float().reshape(groups, heads, 1, 1).expand(*scores.shape[:-1], 1)
        shares = torch.cat([scores, column], dim=-1).softmax(-1)
        return shares[..., :-1], shares[..., -1]


Replacement = Callable[[AttentionCall], Tensor]
"""Computes a call's head_out [batch head token head_width] in its own way."""


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention as transformers' eager functions compute it, open to a watch.

    Raises:
        LayerscopeError: the family hands over something that is not used here, such as the keys that a sparse
            attention chose. Dropped, it would give other numbers without a word.
    """
    _refuse_unknown(module, {"dropout": dropout or None} | others)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    call = AttentionCall(query, key, value, attention_mask, scale, softcap, s_aux)
    replacement: Replacement | None = getattr(module, _INSTEAD, None)
    if replacement is not None:
        return replacement(call).transpose(1, 2).contiguous(), None
    seen = attend(call)
    head_out = seen.head_out
    watch: Watch | None = getattr(module, _WATCH, None)
    if watch is not None:
        edited = watch(seen)
        head_out = head_out if edited is None else edited
    return head_out.transpose(1, 2).contiguous(), seen.pattern.to(query.dtype)


def _refuse_unknown(module: nn.Module, others: Mapping[str, Any]) -> None:
    unknown = [name for name, value in others.items() if value is not None and name not in _HARMLESS]
    if unknown:
        raise LayerscopeError(
            "this family's attention takes something that is not understood here",
            found=f"{type(module).__name__} hands over {', '.join(unknown)}",
            expected="queries, keys, values, a mask, a scale, a soft cap and sinks",
            hint="experiments that neither read nor edit attention",
        )


def by_group(of_heads: Tensor, groups: int) -> Tensor:
    """[batch head ...] as [batch kv_head heads_of_group ...]; a single head stands for all of them."""
    if of_heads.shape[1] == 1:
        return of_heads[:, :, None]
    return of_heads.reshape(of_heads.shape[0], groups, -1, *of_heads.shape[2:])


def without_repeats(of_heads: Tensor) -> Tensor:
    """Of something [batch head ...], one row, or one head, where all are the same."""
    for axis in (0, 1):
        first = of_heads.narrow(axis, 0, 1)
        if of_heads.stride(axis) == 0 or torch.equal(of_heads, first.expand_as(of_heads)):
            of_heads = first
    return of_heads


def seen_keys(mask: Tensor) -> Tensor:
    """Which keys a mask lets each query see, as booleans; masks add a huge negative number elsewhere."""
    return mask > torch.finfo(mask.dtype).min / 2


def attend(call: AttentionCall) -> Attended:
    """The whole of one attention call, with everything that can be read from it."""
    batch, heads, tokens, _width = call.q.shape
    groups = call.k.shape[1]
    grouped = call.q.reshape(batch, groups, heads // groups, tokens, -1)
    scores = call.scores(grouped, call.k[:, :, None])
    if call.mask is not None:
        scores = scores + call.mask_of_groups()
    pattern, sink = call.shares(scores)
    head_out = torch.matmul(pattern.to(call.v.dtype), call.v[:, :, None]).reshape(batch, heads, tokens, -1)
    shape = (batch, heads, tokens)
    return Attended(call.q, call.k, call.v, pattern.reshape(*shape, -1), sink.reshape(shape), head_out)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, eager_mask)


@contextmanager
def watched(model: PreTrainedModel, watches: Mapping[nn.Module, Watch]) -> Iterator[None]:
    """Compute attention here, showing the calls of the given attention modules to their watches.

    The model's own setting is restored on exit; watches hang on the modules only meanwhile.
    """
    with _hanging_on(model, _WATCH, watches):
        yield


@contextmanager
def replaced(model: PreTrainedModel, replacements: Mapping[nn.Module, Replacement]) -> Iterator[None]:
    """Let the given attention modules' calls be computed by their replacements, as `watched` does."""
    with _hanging_on(model, _INSTEAD, replacements):
        yield


@contextmanager
def _hanging_on(model: PreTrainedModel, name: str, things: Mapping[nn.Module, Any]) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        for module, thing in things.items():
            setattr(module, name, thing)
        yield
    finally:
        for module in things:
            if hasattr(module, name):
                delattr(module, name)
        model.set_attn_implementation(before)
