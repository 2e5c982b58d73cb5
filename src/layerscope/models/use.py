"""One run at a time on one model object, and ordinary tensors meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_FINDING = threading.Lock()


@contextmanager
def in_use(module: nn.Module) -> Iterator[None]:
    """Hold a model: another thread waits until it is let go, the same thread may hold it twice.

    Hooks and the attention function in use hang on the modules, so two runs at once would edit each other's
    passes.
    """
    with _lock_of(module), ordinary_tensors():
        yield


def hold_together(module: nn.Module, other: nn.Module) -> None:
    """Let who holds `module` hold `other` too: a run on a trained model uses its twin, and the reverse."""
    lock = _lock_of(module)
    with _FINDING:
        _LOCKS[other] = lock


def _lock_of(module: nn.Module) -> threading.RLock:
    with _FINDING:
        return _LOCKS.setdefault(module, threading.RLock())


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """Leave a caller's `torch.inference_mode()` meanwhile: its tensors can never enter a gradient."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield
