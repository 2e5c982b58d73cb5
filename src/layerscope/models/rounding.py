"""Do two tensors agree up to rounding?"""

from __future__ import annotations

import torch
from torch import Tensor

_RELATIVE = {torch.float64: 1e-6, torch.float32: 2e-4}
_RELATIVE_OF_HALVES = 5e-2


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree up to the rounding of their type, relative to the largest entry."""
    relative = _RELATIVE.get(b.dtype, _RELATIVE_OF_HALVES)
    a, b = a.float(), b.float().to(a.device)
    return bool(((a - b).abs().max() <= relative * b.abs().max().clamp_min(1e-30)).item())


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference of two tensors, in float32."""
    return float((a.float() - b.float()).abs().max())
