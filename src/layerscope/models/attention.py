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

NAME = "layerscope"
_WATCH = "_layerscope_watch"


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
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention as transformers' eager functions compute it, open to a watch."""
    batch, heads, tokens, _width = query.shape
    groups = key.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    grouped = query.reshape(batch, groups, heads // groups, tokens, -1)
    scores = torch.matmul(grouped, key[:, :, None].transpose(-1, -2)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, None, :, : key.shape[-2]]
    pattern, sink = _softmax(scores, s_aux, groups)
    head_out = torch.matmul(pattern.to(value.dtype), value[:, :, None]).reshape(batch, heads, tokens, -1)
    pattern = pattern.reshape(batch, heads, tokens, -1)
    watch: Watch | None = getattr(module, _WATCH, None)
    if watch is not None:
        seen = Attended(query, key, value, pattern, sink.reshape(batch, heads, tokens), head_out)
        replacement = watch(seen)
        head_out = head_out if replacement is None else replacement
    return head_out.transpose(1, 2).contiguous(), pattern.to(query.dtype)


def _softmax(scores: Tensor, sinks: Tensor | None, groups: int) -> tuple[Tensor, Tensor]:
    scores = scores.float()
    if sinks is None:
        return scores.softmax(-1), scores.new_zeros(scores.shape[:-1])
    column = sinks.float().reshape(1, groups, -1, 1, 1).expand(*scores.shape[:-1], 1)
    shares = torch.cat([scores, column], dim=-1).softmax(-1)
    return shares[..., :-1], shares[..., -1]


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, eager_mask)


@contextmanager
def watched(model: PreTrainedModel, watches: Mapping[nn.Module, Watch]) -> Iterator[None]:
    """Compute attention here, showing the calls of the given attention modules to their watches.

    The model's own setting is restored on exit; watches hang on the modules only meanwhile.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        for module, watch in watches.items():
            setattr(module, _WATCH, watch)
        yield
    finally:
        for module in watches:
            if hasattr(module, _WATCH):
                delattr(module, _WATCH)
        model.set_attn_implementation(before)
