"""Activation functions that transformers writes in several steps, computed in one.

GPT-2's GELU is seven passes over the widest tensor of a block; torch has the same formula as one
kernel, three times as fast. Same numbers up to rounding (2e-7).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation


@contextmanager
def fused_activations(model: nn.Module) -> Iterator[None]:
    """Compute the activations of a model in one step each; its modules are as before on exit."""
    modules = [module for module in model.modules() if type(module) is NewGELUActivation]
    try:
        for module in modules:
            module.forward = _gelu
        yield
    finally:
        for module in modules:
            if "forward" in vars(module):
                del module.forward


def _gelu(states: Tensor) -> Tensor:
    return torch.nn.functional.gelu(states, approximate="tanh")
