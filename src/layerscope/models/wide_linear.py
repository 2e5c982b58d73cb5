"""The unembedding, a product with a very wide matrix, at the speed of the processor.

One product with tens of thousands of output columns runs at two thirds of the speed of many products
with a few thousand each: these fit the caches. Same numbers up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_COLUMNS = 2048
_WIDE = 4 * _COLUMNS


def apply_in_blocks(module: nn.Module, states: Tensor) -> Tensor:
    """A module's output; a wide linear layer on the CPU is taken in blocks of its columns.

    Modules with hooks, and layers that only look like a linear one, run as they are.
    """
    if not _is_wide(module) or states.device.type != "cpu":
        out: Tensor = module(states)
        return out
    assert isinstance(module, nn.Linear)
    weight, bias = module.weight, module.bias
    flat = states.reshape(-1, states.shape[-1])
    result = flat.new_empty(len(flat), len(weight))
    for start in range(0, len(weight), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        columns = torch.nn.functional.linear(flat, weight[part], None if bias is None else bias[part])
        result[:, part] = columns
    return result.reshape(*states.shape[:-1], len(weight))


def is_plain_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer and nothing else: no hooks, no forward of its own."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    return type(module) is nn.Linear and not hooks and "forward" not in vars(module)


def _is_wide(module: nn.Module) -> bool:
    return is_plain_linear(module) and isinstance(module, nn.Linear) and module.out_features >= _WIDE
