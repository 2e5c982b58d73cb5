"""What a model takes beside token ids, found by trying.

Signatures do not tell: wrappers pass on whatever they are given, and families swallow what they do not use.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def takes_positions(module: Any, ids: Tensor, own: Tensor) -> bool:
    """Whether position ids are used: the usual ones change nothing, and what is no number cannot be read.

    Args:
        module: the transformers model.
        ids: a text [1 token].
        own: the logits that it gives without more [1 token vocabulary].
    """
    usual = torch.arange(ids.shape[1], device=ids.device)[None]
    given = _tried(module, ids, position_ids=usual)
    if given is None or not _close(given, own):
        return False
    # A table of positions refuses to look NaN up, and rotary angles become NaN; who ignores positions does not
    # notice. Comparing other positions instead would miss models on which positions have no effect.
    nowhere = _tried(module, ids, position_ids=torch.full_like(usual, torch.nan, dtype=torch.float32))
    return nowhere is None or not _close(nowhere, own)


@torch.no_grad()
def keeps_last(module: Any, ids: Tensor, own: Tensor) -> bool:
    """Whether `logits_to_keep=1` gives the logits at the last token alone; arguments as above."""
    last = _tried(module, ids, logits_to_keep=1)
    return last is not None and _close(last, own[:, -1:])


def _tried(module: Any, ids: Tensor, **more: Any) -> Tensor | None:
    try:
        logits: Tensor = module(ids, attention_mask=torch.ones_like(ids), use_cache=False, **more).logits
        return logits
    except Exception:  # an unknown argument, or one that cannot be used: whatever a model raises means no
        return None


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree within rounding; NaN agrees with nothing."""
    size = float(b.float().abs().max())
    return a.shape == b.shape and float((a.float() - b.float()).abs().max()) <= 0.01 * size
